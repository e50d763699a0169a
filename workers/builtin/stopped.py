"""A recording was stopped; the vendor processes its files."""

from schemas import OnlineRecordStopped
from workers.builtin.keeping import keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(remember=False)
async def stopped(event: OnlineRecordStopped, ctx: Context) -> None:
    """Keep the event; the recording is STOPPED until the files are there."""
    await keep(event, ctx)
    ctx.log.info("recording_stopped", task_id=event.task_id, room_id=event.room_id)
