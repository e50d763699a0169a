"""What a consumer makes of a message before its handler sees it."""

from msgspec import Struct

from broker import Delivery, Message
from schemas import UNRECOGNIZED, Event, RecordingEvent, Unrecognized, redecode
from store import Store
from workers.context import Context


class Work(Struct, frozen=True):
    """A delivery that a handler can take."""

    delivery: Delivery
    event: Event
    context: Context


def event_of(message: Message) -> Event | None:
    """Decode a message; None if an ingest node recognized what this worker does not."""
    event = redecode(message.body, routing_key=message.routing_key, received_at_us=message.received_at_us)
    if message.routing_key == UNRECOGNIZED:
        if isinstance(event, RecordingEvent):
            return Unrecognized(
                reason="not recognized by the ingest node that took it in",
                event_type=type(event).__name__,
                timestamp=event.timestamp,
                sdk_app_id=event.sdk_app_id,
            )
        return event
    return None if type(event) is Unrecognized else event


def work_of(delivery: Delivery, event: Event, *, consumer: str, store: Store) -> Work:
    """Return a delivery with all that its handler is told."""
    message = delivery.message
    context = Context(
        consumer=consumer,
        event_id=message.event_id,
        attempt=message.attempt,
        received_at_us=message.received_at_us,
        body=message.body,
        trace=message.trace,
        store=store,
    )
    return Work(delivery, event, context)
