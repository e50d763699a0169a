import asyncio
import os
import signal

from schemas import OnlineRecordFinished
from workers import Context, consumer


@consumer(concurrency=30)
async def poisoned(event: OnlineRecordFinished, ctx: Context) -> None:
    ctx.log.info("attempted", task_id=event.task_id)
    if event.task_id == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    # Its neighbours are still at work when it kills them.
    await asyncio.sleep(0.5)
    ctx.log.info("succeeded", task_id=event.task_id)
