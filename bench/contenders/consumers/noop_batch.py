"""A consumer that does nothing, with as many events at once as there are, and need not remember what it did."""

from bench.contenders.progress import Progress
from schemas import OnlineRecordStarted
from workers import Context, consumer

_progress = Progress()


@consumer(remember=False, batch=100)
async def noop_batch(batch: list[tuple[OnlineRecordStarted, Context]]) -> None:
    """Count them."""
    _progress.handled(len(batch))
