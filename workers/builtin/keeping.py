"""What all built-in consumers do: keep events, and bring their recordings up to date."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from schemas import Event, RecordingEvent
from store import KeptEvent, apply_events
from workers.context import Context

#: The most events in one transaction.
BATCH = 500

#: How many transactions at once, for each consumer: while one is being written the next is made ready.
CONCURRENCY = 2

#: A larger group is told of in one line: lines for each of its events would cost a quarter of keeping them.
TOLD_ONE_BY_ONE = 10

_log = structlog.get_logger()

EventT = TypeVar("EventT", bound=RecordingEvent)


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


def tell(
    batch: Sequence[tuple[EventT, Context]], happened: str, details: Callable[[EventT], Mapping[str, object]]
) -> None:
    """Log what happened to recordings: a line for each, or for many one with their `task_ids`."""
    if len(batch) <= TOLD_ONE_BY_ONE:
        for event, ctx in batch:
            ctx.log.info(happened, task_id=event.task_id, **details(event))
    else:
        consumer = batch[0][1].consumer
        _log.info(happened, consumer=consumer, events=len(batch), task_ids=[event.task_id for event, _ in batch])
