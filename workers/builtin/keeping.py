"""What all built-in consumers do: keep events, and bring their recordings up to date."""

from collections.abc import Sequence

from schemas import Event
from store import KeptEvent, apply_events
from workers.context import Context

#: The most events in one transaction.
BATCH = 500

#: How many transactions at once, for each consumer: while one is being written the next is made ready.
CONCURRENCY = 2


async def keep(batch: Sequence[tuple[Event, Context]]) -> None:
    """Store events and merge them into their recordings, in one transaction that may be repeated at will."""
    store = batch[0][1].store
    if store is None:
        raise RuntimeError("the built-in consumers write to the store: pass run_consumer a store")
    await apply_events(
        store,
        [
            KeptEvent(event=event, event_id=ctx.event_id, received_at_us=ctx.received_at_us, body=ctx.body)
            for event, ctx in batch
        ],
    )
