"""The built-in consumers: one for each event, one for the rest. Each can run, and be scaled, alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from schemas import (
    Event,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecordingArchived,
    RecordingEvent,
    Unrecognized,
)
from store import KeptEvent, apply_events
from workers.api import Context, consumer

#: The most events in one transaction.
BATCH = 500

#: How many transactions at once, for each consumer: while one is being written the next is made ready.
CONCURRENCY = 2

#: A larger group is told of in one line: lines for each of its events would cost a quarter of keeping them.
TOLD_ONE_BY_ONE = 10

_log = structlog.get_logger()

EventT = TypeVar("EventT", bound=RecordingEvent | RecordingArchived)


async def keep(batch: Sequence[tuple[Event, Context]]) -> None:
    """Store events and merge them into their recordings, in one transaction that may be repeated at will."""
    store = batch[0][1].store
    if store is None:
        raise RuntimeError("the built-in consumers write to the store: pass run_consumer a store")
    await apply_events(
        store,
        [
            KeptEvent(
                event=event,
                event_id=ctx.event_id,
                received_at_us=ctx.received_at_us,
                body=ctx.body,
                source=ctx.source,
            )
            for event, ctx in batch
        ],
    )


def tell(
    batch: Sequence[tuple[EventT, Context]], happened: str, details: Callable[[EventT], Mapping[str, object]]
) -> None:
    """Log what happened to recordings: a line for each, or for many one with their `task_ids`."""
    if len(batch) <= TOLD_ONE_BY_ONE:
        for event, ctx in batch:
            ctx.log.info(happened, task_id=event.task_id, **details(event))
    else:
        consumer = batch[0][1].consumer
        _log.info(happened, consumer=consumer, events=len(batch), task_ids=[event.task_id for event, _ in batch])


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def started(batch: list[tuple[OnlineRecordStarted, Context]]) -> None:
    """Keep events; their recordings are RECORDING if nothing later is known."""
    await keep(batch)
    tell(batch, "recording_started", lambda event: {"room_id": event.room_id})


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def stopped(batch: list[tuple[OnlineRecordStopped, Context]]) -> None:
    """Keep events; their recordings are STOPPED until the files are there."""
    await keep(batch)
    tell(batch, "recording_stopped", lambda event: {"room_id": event.room_id})


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def long_pause_warning(batch: list[tuple[OnlineRecordLongPauseWarning, Context]]) -> None:
    """Keep events; their recordings are PAUSED. A person may want to act before `estimate_stop_time`."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.warning(
            "recording_paused_long",
            task_id=event.task_id,
            room_id=event.room_id,
            pause_time=event.pause_time,
            estimate_stop_time=event.estimate_stop_time,
        )


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def long_pause_force_stopped(batch: list[tuple[OnlineRecordLongPauseForceStopped, Context]]) -> None:
    """Keep events; their recordings are STOPPED, at `stop_time`."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.warning(
            "recording_force_stopped", task_id=event.task_id, room_id=event.room_id, stop_time=event.stop_time
        )


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def finished(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
    """Keep events; their recordings are FINISHED, with their videos or their error."""
    await keep(batch)
    succeeded = [(event, ctx) for event, ctx in batch if event.error is None]
    tell(succeeded, "recording_finished", lambda event: {"videos": len(event.video_infos)})
    for event, ctx in batch:
        if event.error is not None:
            ctx.log.warning("recording_failed", task_id=event.task_id, error_code=event.error.code)


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def archived(batch: list[tuple[RecordingArchived, Context]]) -> None:
    """Keep events beside those of their recordings, which they do not change, so that they can be replayed."""
    await keep(batch)
    tell(batch, "recording_archived", lambda event: {"files": len(event.manifest.files)})


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def unrecognized(batch: list[tuple[Unrecognized, Context]]) -> None:
    """Keep callbacks whole, so that they can be seen, and replayed once something understands them."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.info("unrecognized_kept", event_type=event.event_type, reason=event.reason)


#: In the order of a recording's life.
BUILT_IN = (started, long_pause_warning, long_pause_force_stopped, stopped, finished, archived, unrecognized)

__all__ = [
    "BUILT_IN",
    "archived",
    "finished",
    "long_pause_force_stopped",
    "long_pause_warning",
    "started",
    "stopped",
    "unrecognized",
]
