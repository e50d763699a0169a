import asyncio

from schemas import OnlineRecordFinished
from workers import Context, consumer

MENDED = False


@consumer(attempts=2, timeout_s=1)
async def hangs(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    if not MENDED:
        await asyncio.sleep(3600)
    ctx.log.info("succeeded", task_id=event.task_id)
