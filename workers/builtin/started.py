"""A recording has begun."""

from schemas import OnlineRecordStarted
from workers.builtin.keeping import BATCH, CONCURRENCY, keep, tell
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def started(batch: list[tuple[OnlineRecordStarted, Context]]) -> None:
    """Keep events; their recordings are RECORDING if nothing later is known."""
    await keep(batch)
    tell(batch, "recording_started", lambda event: {"room_id": event.room_id})
