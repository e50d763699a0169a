"""What a handler is told besides the event."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from store import Store


class Context(Struct, frozen=True, kw_only=True):
    """One delivery, as its handler sees it.

    `event_id` is the same for every repetition of an event: the idempotency key for effects outside the store.
    `attempt` counts from 1. `received_at` is when the callback came in (UTC). `body` is the callback as it came,
    without Sign and ExpireTime. `log` is a structlog logger that already carries consumer, event_id and attempt.
    `store` is where recordings live; None where a handler runs without one.
    """

    consumer: str
    event_id: str
    attempt: int
    received_at: datetime
    body: bytes
    log: Any
    store: Store | None = None
