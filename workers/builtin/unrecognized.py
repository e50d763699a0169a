"""Authentic callbacks that are none of the five events: other families, or content that fits nothing."""

from schemas import Unrecognized
from workers.builtin.keeping import BATCH, CONCURRENCY, keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def unrecognized(batch: list[tuple[Unrecognized, Context]]) -> None:
    """Keep callbacks whole, so that they can be seen, and replayed once something understands them."""
    await keep(batch)
    for event, ctx in batch:
        ctx.log.info("unrecognized_kept", event_type=event.event_type, reason=event.reason)
