"""A second look at a body that an ingest node has decoded before: its event, in a tenth of the time."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from schemas.decoding import MAX_AHEAD_S, decode
from schemas.events import EVENT_TYPES, Event

_typed: dict[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(kind, strict=False) for name, kind in EVENT_TYPES.items()
}


class _Envelope(Struct, frozen=True, kw_only=True):
    SdkAppId: int = 0
    EventType: str
    Timestamp: int
    EventData: Raw


_envelope = msgspec.json.Decoder(_Envelope)


def redecode(body: bytes, *, routing_key: str, received_at_us: int) -> Event:
    """Return the event that `decode(body, received_at_us=received_at_us)` returns.

    For what a transport delivers, once per delivery: `routing_key` and `received_at_us` are those of the message. The
    event_id is in its header and need not be computed again. That a body under the routing key of one of the five
    events is strict JSON was seen to when it was accepted, and is relied on here: of a stranger's message with a name
    twice, the last counts. Under any other key, and where its content is not quite what the vendor documents, it takes
    as long as `decode`. Raises nothing.
    """
    event = _redecode(body, routing_key, received_at_us) if routing_key in _typed else None
    return decode(body, received_at_us=received_at_us).event if event is None else event


def _redecode(body: bytes, routing_key: str, received_at_us: int) -> Event | None:
    """Return the event if it is one at first sight."""
    if b"\\" in body and b"\\u0000" in body:
        return None
    try:
        envelope = _envelope.decode(body)
        if envelope.EventType != routing_key or envelope.Timestamp > received_at_us // 1_000_000 + MAX_AHEAD_S:
            return None
        # An event is flat: what the envelope says stands behind the members of EventData, and so wins over them.
        event_data = bytes(envelope.EventData)
        flat = b'%b,"Timestamp":%d,"SdkAppId":%d}' % (event_data[:-1], envelope.Timestamp, envelope.SdkAppId)
        event: Event = _typed[routing_key].decode(flat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event
