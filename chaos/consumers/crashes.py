"""A consumer that some events kill: their process ends as if it had run out of memory."""

import os
import signal

from schemas import OnlineRecordFinished
from workers import Context, consumer

#: Of 256 events as many are poison.
POISON = 4


@consumer
async def crashes(event: OnlineRecordFinished, ctx: Context) -> None:
    """Kill this process with about one event in a hundred, always the same ones."""
    if int(ctx.event_id[-2:], 16) < POISON:
        os.kill(os.getpid(), signal.SIGKILL)
