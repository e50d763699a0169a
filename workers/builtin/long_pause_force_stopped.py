"""A recording was stopped because it had been paused for too long."""

from schemas import OnlineRecordLongPauseForceStopped
from workers.builtin.keeping import BATCH, CONCURRENCY, keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def long_pause_force_stopped(batch: list[tuple[OnlineRecordLongPauseForceStopped, Context]]) -> None:
    """Keep events; their recordings are STOPPED, at `stop_time`."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.warning(
            "recording_force_stopped", task_id=event.task_id, room_id=event.room_id, stop_time=event.stop_time
        )
