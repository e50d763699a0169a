"""A recording has begun."""

from schemas import OnlineRecordStarted
from workers.builtin.keeping import keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(remember=False)
async def started(event: OnlineRecordStarted, ctx: Context) -> None:
    """Keep the event; the recording is RECORDING if nothing later is known."""
    await keep(event, ctx)
    ctx.log.info("recording_started", task_id=event.task_id, room_id=event.room_id)
