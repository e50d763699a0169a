"""A recording has been paused for long and will be stopped."""

from schemas import OnlineRecordLongPauseWarning
from workers.builtin.keeping import BATCH, CONCURRENCY, keep
from workers.consumer import consumer
from workers.context import Context


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
