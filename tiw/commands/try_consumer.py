"""`tiw try`: a consumer on sample events, or on a callback that is given, with no broker and no database of yours."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from ingest import without_dropped
from schemas import EVENT_TYPES, UNRECOGNIZED, Event, OnlineRecordFinished, RecordingEvent, decode
from simulator import ClassKind, play_class, render
from store import Store, migrate
from telemetry import configure_logging
from tiw.settings import FailedError, Settings, UsageError
from workers import Ack, Consumer, Drop, Outcome, Retry, load_consumers, run_consumer

#: The vendor's example of an SdkAppId.
_SDK_APP_ID = 1400000001


class _Given(Struct, frozen=True, kw_only=True):
    """An event, with the callback that it was in."""

    event: Event
    event_id: str
    body: bytes

    @property
    def name(self) -> str:
        return type(self.event).__name__ if isinstance(self.event, RecordingEvent) else "Unrecognized"


async def try_consumer(settings: Settings, args: argparse.Namespace) -> int:
    """Run every consumer of a file on the events that it takes; exit code 1 unless all are handled or dropped."""
    configure_logging(settings.log_format)
    consumers = [consumer for consumer in load_consumers([args.file]) if args.consumer in (None, consumer.name)]
    if not consumers:
        raise UsageError(f"{args.file} defines no consumer {args.consumer!r}")
    given = [_read(args.body)] if args.body else _samples()
    wanted = _event_name(args.event)
    is_well, tried = True, 0
    with tempfile.TemporaryDirectory(prefix="tiw-try-") as folder:
        async with Store(f"sqlite+aiosqlite:///{folder}/store.db") as store:
            await migrate(store)
            for consumer in consumers:
                for one in given:
                    if isinstance(one.event, consumer.event_types) and wanted in (None, one.name):
                        tried += 1
                        is_well &= await _try(consumer, one, store=store, attempt=args.attempt)
    if not tried:
        takes = ", ".join(dict.fromkeys(kind.__name__ for consumer in consumers for kind in consumer.event_types))
        raise FailedError(f"nothing was tried: the consumers of {args.file} take {takes}")
    return 0 if is_well else 1


async def _try(consumer: Consumer, given: _Given, *, store: Store, attempt: int) -> bool:
    """Run a consumer on an event, print what became of it, and say whether that is an end as one wants it."""
    began_s = time.monotonic()
    outcome = await run_consumer(
        consumer, given.event, event_id=given.event_id, body=given.body, attempt=attempt, store=store
    )
    took_s = time.monotonic() - began_s
    # Nobody is asked: a sample is of no recording.
    is_confirmed = consumer.verified and isinstance(given.event, OnlineRecordFinished)
    note = "  (taken as confirmed by the vendor)" if is_confirmed else ""
    print(f"{consumer.name}  {given.name}  {_words(outcome)}  in {took_s:.3f} s{note}", flush=True)
    return isinstance(outcome, Ack | Drop)


def _words(outcome: Outcome) -> str:
    if isinstance(outcome, Ack):
        return "handled"
    if isinstance(outcome, Drop):
        return f"dropped: {outcome.reason}"
    if isinstance(outcome, Retry):
        when = "" if outcome.after_s is None else f" after {outcome.after_s:g} s or later"
        return f"to be retried{when}" + (f": {outcome.reason}" if outcome.reason else "")
    return f"dead letter: {outcome.reason}"


def _event_name(given: str | None) -> str | None:
    """Return the full name of a kind of event, which may be given by its last words: `Finished`."""
    if given is None:
        return None
    names = [*(kind.__name__ for kind in EVENT_TYPES.values()), "Unrecognized"]
    found = [name for name in names if name.lower() == given.lower()] or [
        name for name in names if name.lower().endswith(given.lower())
    ]
    if len(found) != 1:
        raise UsageError(f"--event {given} is none of {', '.join(names)}")
    return found[0]


def _samples() -> list[_Given]:
    """Return an event of each kind, as the vendor would send it."""
    kinds = (
        ClassKind.NORMAL,
        ClassKind.LONG_PAUSE_RESUMED,
        ClassKind.LONG_PAUSE_FORCE_STOPPED,
        ClassKind.OTHER_FAMILIES,
    )
    found: dict[str, _Given] = {}
    for kind in kinds:
        for callback in play_class(kind, Random(1), sdk_app_id=_SDK_APP_ID, room_id=1253):  # noqa: S311 - no secret
            given = _decoded(render(callback))
            found.setdefault(given.name, given)
    order = [*EVENT_TYPES, UNRECOGNIZED]
    return sorted(found.values(), key=lambda given: order.index(given.name) if given.name in order else len(order))


def _read(source: str) -> _Given:
    """Return the event of a callback in a file, or on standard input; with or without its Sign."""
    try:
        body = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise FailedError(f"{source} cannot be read: {error.strerror}") from error
    return _decoded(body)


def _decoded(body: bytes) -> _Given:
    """Return the event of a body as consumers get it: without Sign and ExpireTime."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        kept = body
    else:
        kept = msgspec.json.encode(without_dropped(members))
    decoded = decode(kept, received_at_us=time.time_ns() // 1000)
    return _Given(event=decoded.event, event_id=decoded.event_id, body=kept)
