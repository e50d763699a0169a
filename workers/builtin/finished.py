"""The result of a recording: its files, or why there are none."""

from schemas import OnlineRecordFinished
from workers.builtin.keeping import BATCH, CONCURRENCY, keep, tell
from workers.consumer import consumer
from workers.context import Context


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
