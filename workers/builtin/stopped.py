"""A recording was stopped; the vendor processes its files."""

from schemas import OnlineRecordStopped
from workers.builtin.keeping import BATCH, CONCURRENCY, keep, tell
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def stopped(batch: list[tuple[OnlineRecordStopped, Context]]) -> None:
    """Keep events; their recordings are STOPPED until the files are there."""
    await keep(batch)
    tell(batch, "recording_stopped", lambda event: {"room_id": event.room_id})
