"""`tiw events list|show|replay`."""

import argparse

from store import EventFilter, check_schema, find_event, list_events
from tiw.commands.recordings import show_verified
from tiw.doctor import require_consumer
from tiw.opening import open_store, open_transport
from tiw.output import (
    nothing,
    parse_moment_us,
    parse_since_us,
    print_fields,
    print_json,
    print_table,
    require_queue,
    show_iso,
    show_unix_s,
)
from tiw.settings import FailedError, Settings
from workers import EventSelection, Replayed, ReplayedEvents, count_events, replay_events


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print events, the latest accepted first."""
    chosen = EventFilter(
        app=args.app,
        task=args.task,
        event_type=args.type,
        unrecognized=args.unrecognized,
        source="" if args.source == "callback" else args.source,
        consumer=args.consumer,
        from_us=parse_since_us(args.since),
        until_us=parse_moment_us(args.until, "--until"),
    )
    async with open_store(settings) as store:
        await check_schema(store)
        if args.consumer is not None:
            await require_consumer(store, args.consumer)
        events = await list_events(store, chosen, bodies=args.bodies, limit=args.limit)
    if args.json:
        print_json(events)
        return 0
    columns = ["received UTC", "event", "recording", "event_id", "sent UTC", "application", "source", "verified"]
    rows: list[tuple[object, ...]] = [
        (
            show_iso(event.received_at),
            event.event_type,
            event.task_id,
            event.event_id,
            show_unix_s(event.timestamp),
            str(event.sdk_app_id),
            event.source or "callback",
            show_verified(verified=event.verified),
        )
        for event in events
    ]
    if args.bodies:
        columns.append("body")
        bodies = (event.body or event.body_base64 or "" for event in events)
        rows = [(*row, body) for row, body in zip(rows, bodies, strict=True)]
    print_table(
        columns,
        rows,
        empty=nothing("events", *(getattr(chosen, name) for name in EventFilter.__struct_fields__)),
        spare=["source", "verified", "application", "sent UTC", "event_id"],
        wide=args.wide,
    )
    return 0


async def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print an event whole."""
    async with open_store(settings) as store:
        await check_schema(store)
        event = await find_event(store, args.event_id)
    if event is None:
        raise FailedError("there is no such event")
    if args.json:
        print_json([event])
        return 0
    print_fields(
        {
            "event": event.event_type,
            "recording": event.task_id,
            "application": event.sdk_app_id,
            "sent (UTC)": show_unix_s(event.timestamp),
            "received (UTC)": show_iso(event.received_at),
            "source": event.source or "callback",
            "verified": show_verified(verified=event.verified),
            "body": event.body or event.body_base64 or "",
        },
        title=event.event_id,
    )
    return 0


async def replay(settings: Settings, args: argparse.Namespace) -> int:
    """Bring kept events to one consumer again, as if they were new to it, at most `rate` a second."""
    since_us = parse_since_us(args.since)
    async with open_store(settings) as store:
        await check_schema(store)
        routing_keys = await require_consumer(store, args.consumer)
        selection = EventSelection(
            routing_keys=routing_keys, since_us=since_us, task_id=args.task, event_id=args.event_id
        )
        if args.dry_run:
            done = Replayed(count=await count_events(store, selection))
        else:
            async with open_transport(settings) as transport:
                await require_queue(transport, args.consumer)
                done = await replay_events(store, transport, args.consumer, selection, rate=args.rate)
    if done.stopped:
        raise FailedError(f"stopped after {done.count} events: {done.stopped}: run it again")
    count = done.count
    if args.json:
        print_json(ReplayedEvents(consumer=args.consumer, replayed=0 if args.dry_run else count, matching=count))
    else:
        print(f"{count} events {'would go' if args.dry_run else 'went'} to {args.consumer}")
    return 0
