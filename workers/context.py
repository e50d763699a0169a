"""What a handler is told besides the event."""

from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from msgspec import Struct

from store import Store

_EPOCH = datetime.fromtimestamp(0, UTC)


class Context(Struct, frozen=True, kw_only=True):
    """One delivery, as its handler sees it.

    `event_id` is the same for every repetition of an event: the idempotency key for effects outside the store.
    `attempt` counts from 1. `received_at_us` is when the callback came in, in microseconds since the Unix epoch.
    `body` is the callback as it came, without Sign and ExpireTime. `trace` is a W3C traceparent or empty. `store` is
    where recordings live; None where a handler runs without one.
    """

    consumer: str
    event_id: str
    attempt: int
    received_at_us: int
    body: bytes
    trace: str = ""
    store: Store | None = None

    @property
    def received_at(self) -> datetime:
        """When the callback came in (UTC)."""
        return _EPOCH + timedelta(microseconds=self.received_at_us)

    @property
    def log(self) -> Any:
        """A structlog logger that already carries consumer, event_id, attempt and trace."""
        # Made only where it is used: most handlers have nothing to say.
        return structlog.get_logger(
            consumer=self.consumer, event_id=self.event_id, attempt=self.attempt, trace=self.trace or None
        )
