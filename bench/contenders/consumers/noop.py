"""A consumer that does nothing, and need not remember what it did."""

from bench.contenders.progress import Progress
from schemas import OnlineRecordStarted
from workers import Context, consumer

_progress = Progress()


# At most 100 deliveries are here and not acknowledged: twice the concurrency.
@consumer(remember=False, concurrency=50)
async def noop(event: OnlineRecordStarted, ctx: Context) -> None:
    """Count it."""
    del event, ctx
    _progress.handled()
