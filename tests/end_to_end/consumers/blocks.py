import time

from schemas import OnlineRecordFinished
from workers import Context, consumer

MENDED = False


@consumer(attempts=1)
async def blocks(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    if not MENDED:
        time.sleep(6)  # noqa: ASYNC251 - the mistake that this consumer is about
        raise BlockingIOError("copied with a blocking call")
    ctx.log.info("succeeded", task_id=event.task_id)
