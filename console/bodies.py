"""Bodies of callbacks for a page: as they came, and beside that with line breaks where they are JSON."""

import base64
from typing import Final

import msgspec
from msgspec import Struct

from store import DeadLetterRow, EventRow

#: Of a body, of each of its two forms; a callback is far smaller. The JSON form of the page has it whole.
SHOWN_BYTES: Final = 32 * 1024
_FORMATTED_BYTES: Final = 4 * SHOWN_BYTES


class ShownBody(Struct, frozen=True, kw_only=True):
    """A body as a page shows it.

    `raw` is the beginning of it, `in_order` the same with line breaks and indents, if it is JSON. `is_base64`: it is no
    UTF-8, and shown as base64. `size_bytes` is that of the whole.
    """

    raw: str
    in_order: str | None
    is_base64: bool
    is_cut: bool
    size_bytes: int


def shown_body(row: EventRow | DeadLetterRow) -> ShownBody | None:
    """Return the body of a row that was asked for with it."""
    if isinstance(row.body_base64, str):
        size_bytes = len(base64.b64decode(row.body_base64))
        cut = row.body_base64[:SHOWN_BYTES]
        is_cut = len(row.body_base64) > SHOWN_BYTES
        return ShownBody(raw=cut, in_order=None, is_base64=True, is_cut=is_cut, size_bytes=size_bytes)
    if not isinstance(row.body, str):
        return None
    encoded = row.body.encode("utf-8", "surrogatepass")
    in_order = _in_order(encoded)
    is_cut = len(encoded) > SHOWN_BYTES or (in_order is not None and len(in_order) > SHOWN_BYTES)
    return ShownBody(
        raw=_beginning(encoded),
        in_order=None if in_order is None else _beginning(in_order),
        is_base64=False,
        is_cut=is_cut,
        size_bytes=len(encoded),
    )


def body_bytes(row: EventRow | DeadLetterRow) -> bytes:
    """Return the body of a row that was asked for with it."""
    if isinstance(row.body_base64, str):
        return base64.b64decode(row.body_base64)
    return row.body.encode("utf-8", "surrogatepass") if isinstance(row.body, str) else b""


def _in_order(encoded: bytes) -> bytes | None:
    """Return JSON with line breaks and indents, digits and names as they were sent; None for other text."""
    if len(encoded) > _FORMATTED_BYTES:
        return None
    try:
        return msgspec.json.format(encoded, indent=2)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _beginning(encoded: bytes) -> str:
    return encoded[:SHOWN_BYTES].decode("utf-8", "ignore")
