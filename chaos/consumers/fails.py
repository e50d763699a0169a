"""A consumer that never succeeds: each of its events must end as a dead letter."""

from schemas import OnlineRecordFinished
from workers import Context, consumer


@consumer(attempts=3)
async def fails(event: OnlineRecordFinished, ctx: Context) -> None:
    """Fail."""
    raise PermissionError("the bucket is not ours")
