"""A recording has begun."""

from schemas import OnlineRecordStarted
from workers.builtin.keeping import BATCH, CONCURRENCY, keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def started(batch: list[tuple[OnlineRecordStarted, Context]]) -> None:
    """Keep events; their recordings are RECORDING if nothing later is known."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.info("recording_started", task_id=event.task_id, room_id=event.room_id)
