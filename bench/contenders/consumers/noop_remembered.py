"""A consumer that does nothing, and is not given again what it has done: each event is noted in the store."""

from bench.contenders.progress import Progress
from schemas import OnlineRecordStarted
from workers import Context, consumer

_progress = Progress()


# At most 100 deliveries are here and not acknowledged: twice the concurrency.
@consumer(concurrency=50)
async def noop_remembered(event: OnlineRecordStarted, ctx: Context) -> None:
    """Count it."""
    del event, ctx
    _progress.handled()
