"""Callbacks as large as a receiver takes them."""

from msgspec import structs

from schemas import decode
from simulator import Callback, sign
from simulator.classes import render

_PADDING = "Padding"


def enlarged(callback: Callback, body_bytes: int) -> Callback:
    """Return the callback with a member more in its data, so that its signed body has exactly this size.

    Its event_id is another one: that of the larger content. A callback that is larger already comes back as it is.
    """
    empty = _padded(callback, "")
    missing = body_bytes - len(render(empty, sign("any", callback.timestamp)))
    if missing < 0:
        return callback
    larger = _padded(callback, "x" * missing)
    content = decode(render(larger), received_at_us=callback.timestamp * 1_000_000)
    return structs.replace(larger, event_id=content.event_id)


def _padded(callback: Callback, padding: str) -> Callback:
    data = callback.event_data.rstrip().removesuffix("}")
    return structs.replace(callback, event_data=f'{data},"{_PADDING}":"{padding}"}}')
