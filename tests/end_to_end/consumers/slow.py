import asyncio
import os

from schemas import OnlineRecordStarted
from workers import Context, consumer


@consumer
async def slow(event: OnlineRecordStarted, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id, pid=os.getpid())
    await asyncio.sleep(2)
    ctx.log.info("succeeded", task_id=event.task_id, pid=os.getpid())
