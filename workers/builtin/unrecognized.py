"""Authentic callbacks that are none of the five events: other families, or content that fits nothing."""

from schemas import Unrecognized
from workers.builtin.keeping import keep
from workers.consumer import consumer
from workers.context import Context


# Not remembered: the store takes each event once by itself.
@consumer(remember=False)
async def unrecognized(event: Unrecognized, ctx: Context) -> None:
    """Keep the callback whole, so that it can be seen, and replayed once something understands it."""
    await keep(event, ctx)
    ctx.log.info("unrecognized_kept", event_type=event.event_type, reason=event.reason)
