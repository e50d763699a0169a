"""Try a consumer on an event without a broker."""

import time
from datetime import UTC, datetime

import structlog

from schemas import Event
from store import Store
from workers.attempt import attempt as run_attempt
from workers.consumer import Consumer
from workers.context import Context
from workers.outcomes import Outcome


async def run_consumer(
    consumer: Consumer,
    event: Event,
    *,
    event_id: str = "0" * 32,
    attempt: int = 1,
    body: bytes = b"{}",
    received_at: datetime | None = None,
    store: Store | None = None,
) -> Outcome:
    """Run `consumer` once on `event`, exactly as the runner would, time-out included, and return the outcome.

    `assert await run_consumer(archive, OnlineRecordFinished(task_id="t", timestamp=1)) == Ack()`
    """
    context = Context(
        consumer=consumer.name,
        event_id=event_id,
        attempt=attempt,
        received_at=received_at or datetime.fromtimestamp(time.time(), UTC),
        body=body,
        log=structlog.get_logger().bind(consumer=consumer.name, event_id=event_id, attempt=attempt),
        store=store,
    )
    return await run_attempt(consumer, event, context)
