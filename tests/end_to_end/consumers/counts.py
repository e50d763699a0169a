import os

from schemas import RecordingEvent, Unrecognized
from workers import Context, consumer


@consumer
async def counts(event: RecordingEvent | Unrecognized, ctx: Context) -> None:
    ctx.log.info("succeeded", pid=os.getpid())
