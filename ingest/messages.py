"""What is published of a callback that was let in."""

from broker import Message
from ingest.admission import Admitted
from schemas import UNRECOGNIZED, Unrecognized


def message_of(admitted: Admitted, *, received_at_us: int, trace: str) -> Message:
    """Return the message of an authentic callback, without Sign and ExpireTime."""
    event = admitted.decoded.event
    return Message(
        body=admitted.body,
        event_id=admitted.decoded.event_id,
        routing_key=UNRECOGNIZED if isinstance(event, Unrecognized) else type(event).__name__,
        received_at_us=received_at_us,
        trace=trace,
    )
