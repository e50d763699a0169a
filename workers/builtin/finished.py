"""The result of a recording: its files, or why there are none."""

from schemas import OnlineRecordFinished
from workers.builtin.keeping import keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(remember=False)
async def finished(event: OnlineRecordFinished, ctx: Context) -> None:
    """Keep the event; the recording is FINISHED, with its videos or its error."""
    await keep(event, ctx)
    if event.error is None:
        ctx.log.info("recording_finished", task_id=event.task_id, videos=len(event.video_infos))
    else:
        ctx.log.warning("recording_failed", task_id=event.task_id, error_code=event.error.code)
