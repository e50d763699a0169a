"""`tiw events list|replay`."""

import argparse
import asyncio
import time

from msgspec import Struct

from broker import BrokerError, Message
from schemas import UNRECOGNIZED
from store import check_schema, forget, list_events, pages_for_replay
from tiw.commands.recordings import show_verified
from tiw.doctor import require_consumer
from tiw.opening import open_store, open_transport
from tiw.output import nothing, parse_since_us, print_json, print_table, require_queue, show_iso, show_unix_s
from tiw.settings import FailedError, Settings


class ReplayedEvents(Struct, frozen=True, kw_only=True):
    """How many kept events went to a consumer, of those that matched; after a dry run none."""

    consumer: str
    replayed: int
    matching: int


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print events, the latest accepted first."""
    since_us = parse_since_us(args.since)
    async with open_store(settings) as store:
        await check_schema(store)
        events = await list_events(
            store,
            app=args.app,
            since_us=since_us,
            unrecognized=args.unrecognized,
            bodies=args.bodies,
            limit=args.limit,
        )
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
        empty=nothing("events", args.app, args.since, args.unrecognized),
        spare=["source", "verified", "application", "sent UTC", "event_id"],
        wide=args.wide,
    )
    return 0


async def replay(settings: Settings, args: argparse.Namespace) -> int:
    """Bring kept events to one consumer again, as if they were new to it, at most `rate` a second."""
    since_us = parse_since_us(args.since)
    async with open_store(settings) as store:
        await check_schema(store)
        routing_keys = await require_consumer(store, args.consumer)
        pages = pages_for_replay(
            store,
            event_types=[key for key in routing_keys if key != UNRECOGNIZED],
            unrecognized=UNRECOGNIZED in routing_keys,
            since_us=since_us,
            task_id=args.task,
        )
        count = 0
        if args.dry_run:
            async for page in pages:
                count += len(page)
        else:
            async with open_transport(settings) as transport:
                await require_queue(transport, args.consumer)
                due_s = time.monotonic()
                async for page in pages:
                    await forget(store, consumer=args.consumer, event_ids=[kept.event_id for kept in page])
                    for kept in page:
                        message = Message(
                            body=kept.body,
                            event_id=kept.event_id,
                            routing_key=kept.routing_key,
                            received_at_us=kept.received_at_us,
                            source=kept.source,
                        )
                        try:
                            await transport.send(args.consumer, message)
                        except BrokerError as error:
                            raise FailedError(f"stopped after {count} events: {error}: run it again") from error
                        count += 1
                        due_s = max(due_s + 1 / args.rate, time.monotonic() - 1)
                        await asyncio.sleep(due_s - time.monotonic())
    if args.json:
        print_json(ReplayedEvents(consumer=args.consumer, replayed=0 if args.dry_run else count, matching=count))
    else:
        print(f"{count} events {'would go' if args.dry_run else 'went'} to {args.consumer}")
    return 0
