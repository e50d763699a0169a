from schemas import OnlineRecordFinished
from workers import Context, consumer

MENDED = False


@consumer(attempts=3)
async def fails(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    if not MENDED:
        raise PermissionError("the bucket is not ours")
    ctx.log.info("succeeded", task_id=event.task_id)
