"""What travels through a transport: a callback's body and what we add to it."""

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True):
    """An event on its way.

    `body` is the callback as it came in, without Sign and ExpireTime. Everything else travels in headers:
    `routing_key` is the EventType of a recognized event, else `unrecognized`; `attempt` counts from 1;
    `crashes` counts workers that died while they held this message, as far as earlier publishes know; `trace` is a W3C
    traceparent or empty. The last three are empty until a handler has failed. Times are microseconds since the
    Unix epoch.
    """

    body: bytes
    event_id: str
    routing_key: str
    received_at_us: int
    attempt: int = 1
    crashes: int = 0
    trace: str = ""
    first_failed_at_us: int | None = None
    last_failed_at_us: int | None = None
    reason: str = ""
