from schemas import OnlineRecordFinished
from workers import Context, consumer


@consumer
async def fails_thrice(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    if ctx.attempt <= 3:
        raise ConnectionError("the archive does not answer")
    ctx.log.info("succeeded", task_id=event.task_id)
