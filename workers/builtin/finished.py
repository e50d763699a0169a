"""The result of a recording: its files, or why there are none."""

from schemas import OnlineRecordFinished
from workers.builtin.keeping import BATCH, CONCURRENCY, keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def finished(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
    """Keep events; their recordings are FINISHED, with their videos or their error."""
    await keep(batch)
    for event, ctx in batch:
        if event.error is None:
            ctx.log.info("recording_finished", task_id=event.task_id, videos=len(event.video_infos))
        else:
            ctx.log.warning("recording_failed", task_id=event.task_id, error_code=event.error.code)
