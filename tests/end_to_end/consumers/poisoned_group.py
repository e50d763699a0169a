import os
import signal
import time

from schemas import OnlineRecordFinished
from workers import Context, consumer


@consumer(batch=30, concurrency=2)
def poisoned_group(batch: list[tuple[OnlineRecordFinished, Context]]) -> None:
    for event, ctx in batch:
        ctx.log.info("attempted", task_id=event.task_id)
    # Groups beside it are still at work when it kills them.
    time.sleep(0.5)
    for event, ctx in batch:
        if event.task_id == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        ctx.log.info("succeeded", task_id=event.task_id)
