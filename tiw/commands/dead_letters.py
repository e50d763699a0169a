"""`tiw dead-letters list|show|replay|purge`."""

import argparse
import sys
from contextlib import AsyncExitStack

from broker import EMBEDDED_FILE, BrokerError
from store import Store, check_schema, list_dead_letters
from tiw.doctor import require_consumer
from tiw.opening import open_store, open_transport
from tiw.output import (
    nothing,
    parse_since_us,
    print_fields,
    print_json,
    print_lines,
    print_table,
    require_broker,
    show_iso,
)
from tiw.settings import FailedError, Settings
from workers import (
    LetterSelection,
    PurgedDeadLetters,
    Replayed,
    ReplayedDeadLetters,
    count_letters,
    known_consumers,
    purge_letters,
    replay_letters,
)


async def list_all(settings: Settings, args: argparse.Namespace) -> int:
    """Print dead letters, newest first, and say on standard error how many are still on their way to the store."""
    since_us = parse_since_us(args.since)
    async with open_store(settings) as store:
        await _check(store, args)
        letters = await list_dead_letters(
            store,
            consumer=args.consumer,
            event_id=args.event_id,
            reason=args.reason,
            resolved=args.replayed,
            app=args.app,
            since_us=since_us,
            limit=args.limit,
        )
        await _tell_waiting(settings, store)
    if args.json:
        print_json(letters)
        return 0
    print_table(
        ["consumer", "recording", "attempts", "reason", "last failed UTC", "event", "event_id"],
        [
            (
                letter.consumer,
                letter.task_id,
                letter.attempts,
                letter.reason,
                show_iso(letter.last_failed_at),
                letter.event_type,
                letter.event_id,
            )
            for letter in letters
        ],
        empty=nothing(
            "dead letters",
            *(args.consumer, args.event_id, args.reason, args.app, args.since, args.replayed),
            at_all="No dead letters.",
        ),
        spare=["event_id", "event", "last failed UTC"],
        wide=args.wide,
    )
    return 0


async def show(settings: Settings, args: argparse.Namespace) -> int:
    """Print dead letters whole."""
    async with open_store(settings) as store:
        await _check(store, args)
        letters = await list_dead_letters(
            store,
            consumer=args.consumer,
            event_id=args.event_id,
            reason=args.reason,
            resolved=args.replayed,
            bodies=True,
            limit=0,
        )
    if not letters:
        raise FailedError("there is no such dead letter")
    if args.json:
        print_json(letters)
        return 0
    for letter in letters:
        print_fields(
            {
                "event": letter.event_type,
                "recording": letter.task_id,
                "application": letter.sdk_app_id,
                "attempts": letter.attempts,
                "reason": letter.reason,
                "first failed (UTC)": show_iso(letter.first_failed_at),
                "last failed (UTC)": show_iso(letter.last_failed_at),
                "body": letter.body or letter.body_base64 or "",
            },
            title=f"{letter.consumer} {letter.event_id}",
        )
        if letter.traceback:
            print_lines(["  traceback", *(f"    {line}" for line in letter.traceback.splitlines())])
    return 0


async def replay(settings: Settings, args: argparse.Namespace) -> int:
    """Bring dead letters back to their consumers as first attempts, then mark them as replayed.

    Those of a consumer without a queue are left as they are, and named at the end: exit code 1.
    """
    selection = _selection(args)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        await _check(store, args)
        if args.dry_run:
            done = Replayed(count=sum((await count_letters(store, selection)).values()))
        else:
            transport = await stack.enter_async_context(open_transport(settings, may_be_new=True))
            await require_broker(transport)
            done = await replay_letters(store, transport, selection)
    if done.stopped:
        raise FailedError(f"stopped after {done.count} dead letters: {done.stopped}: run it again")
    _report(
        args,
        ReplayedDeadLetters(replayed=0 if args.dry_run else done.count, matching=done.count),
        done.count,
        "replayed",
    )
    if done.without_queue:
        missing = ", ".join(done.without_queue)
        raise FailedError(
            f"those of {missing} are left: no queue is there; start the consumer once with `tiw work NAME`"
        )
    return 0


async def purge(settings: Settings, args: argparse.Namespace) -> int:
    """Delete dead letters for good."""
    async with open_store(settings) as store:
        await _check(store, args)
        if args.dry_run:
            count = sum((await count_letters(store, _selection(args))).values())
        else:
            count = await purge_letters(store, _selection(args))
    _report(args, PurgedDeadLetters(purged=0 if args.dry_run else count, matching=count), count, "purged")
    return 0


def _selection(args: argparse.Namespace) -> LetterSelection:
    return LetterSelection(consumer=args.consumer, event_id=args.event_id, reason=args.reason)


async def _check(store: Store, args: argparse.Namespace) -> None:
    await check_schema(store)
    if args.consumer is not None:
        await require_consumer(store, args.consumer)


def _report(args: argparse.Namespace, value: ReplayedDeadLetters | PurgedDeadLetters, count: int, done: str) -> None:
    if args.json:
        print_json(value)
    else:
        print(f"{count} dead letters {'would be ' if args.dry_run else ''}{done}")


async def _tell_waiting(settings: Settings, store: Store) -> None:
    names = await known_consumers(store)
    if settings.is_embedded and not (settings.data_dir / EMBEDDED_FILE).exists():
        return
    try:
        async with open_transport(settings) as transport:
            await require_broker(transport)
            states = await transport.inspect(sorted(names))
    except (BrokerError, FailedError) as error:
        print(f"tiw: what still waits in queues is not known: {error}", file=sys.stderr)
        return
    waiting = {state.consumer: state.dead for state in states if state.dead}
    if waiting:
        listed = ", ".join(f"{count} of {consumer}" for consumer, count in waiting.items())
        print(f"tiw: still on their way from queues to the store: {listed}", file=sys.stderr)
