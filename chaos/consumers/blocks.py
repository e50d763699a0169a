"""A consumer that stands still: a blocking call in an async handler, now and then for seconds."""

import time

from schemas import OnlineRecordStarted
from workers import Context, consumer


@consumer(attempts=8, concurrency=1)
async def blocks(event: OnlineRecordStarted, ctx: Context) -> None:
    """Block the process that runs it, for 2 s with every eighth event."""
    if int(ctx.event_id[:2], 16) % 8 == 0:
        time.sleep(2)  # noqa: ASYNC251 - the mistake that this consumer is about
