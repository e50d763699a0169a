"""What all built-in consumers do: keep the event, and bring its recording up to date."""

from schemas import Event
from store import KeptEvent, apply_events
from workers.context import Context


async def keep(event: Event, ctx: Context) -> None:
    """Store the event and merge it into its recording, in one transaction that may be repeated at will."""
    if ctx.store is None:
        raise RuntimeError("the built-in consumers write to the store: pass run_consumer a store")
    kept = KeptEvent(
        event=event,
        event_id=ctx.event_id,
        received_at_us=round(ctx.received_at.timestamp() * 1_000_000),
        body=ctx.body,
    )
    await apply_events(ctx.store, [kept])
