import time

from schemas import OnlineRecordFinished
from workers import Context, Retry, consumer

MENDED = False


@consumer(attempts=2)
def plain(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    time.sleep(2)
    if not MENDED:
        raise Retry(after_s=0.8, reason="the disk is full")
    ctx.log.info("succeeded", task_id=event.task_id)
