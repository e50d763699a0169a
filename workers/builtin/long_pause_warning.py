"""A recording has been paused for long and will be stopped."""

from schemas import OnlineRecordLongPauseWarning
from workers.builtin.keeping import keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(remember=False)
async def long_pause_warning(event: OnlineRecordLongPauseWarning, ctx: Context) -> None:
    """Keep the event; the recording is PAUSED. A person may want to act before `estimate_stop_time`."""
    await keep(event, ctx)
    ctx.log.warning(
        "recording_paused_long",
        task_id=event.task_id,
        room_id=event.room_id,
        pause_time=event.pause_time,
        estimate_stop_time=event.estimate_stop_time,
    )
