"""Frames of AMQP 0-9-1, as far as publishing, confirming, delivering and acknowledging need them.

A frame is a byte of kind, a channel, a length, that many bytes, and `FRAME_END`:
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, section 4.2.3. Everything else on a connection is aiormq's.
"""

from struct import Struct as Layout
from typing import NamedTuple

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
#: What a frame has besides its payload.
FRAME_OVERHEAD = 8

#: Class and method, as the first four bytes of a method's payload.
PUBLISH = b"\0\x3c\0\x28"
RETURN = b"\0\x3c\0\x32"
DELIVER = b"\0\x3c\0\x3c"
ACK = b"\0\x3c\0\x50"
NACK = b"\0\x3c\0\x78"
BLOCKED = b"\0\x0a\0\x3c"
UNBLOCKED = b"\0\x0a\0\x3d"

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

FRAME_HEAD = Layout(">BHI")
_BASIC_CLASS = b"\0\x3c\0\0"
_CONTENT = Layout(">4sQ")
_TAG = Layout(">QB")
_MANDATORY = b"\x01"
_ACK_FRAME = Layout(">BHI4sQBB")


class Confirm(NamedTuple):
    """The broker's word on one publish, or with `multiple` on all up to it: kept, or refused."""

    tag: int
    multiple: bool
    is_kept: bool


class Arrival(NamedTuple):
    """A message that the broker delivered, or returned as unroutable (then `tag` is 0 and `routing_key` empty).

    `properties` are as in the frame: two bytes of flags, then those that are there.
    """

    tag: int
    routing_key: str
    properties: bytes
    body: bytes


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return b"%b%b\xce" % (FRAME_HEAD.pack(kind, channel, len(payload)), payload)


def publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    """Return the first frame of a mandatory publish; the content's frames follow. Raises ValueError for long names."""
    return frame(METHOD, channel, PUBLISH + b"\0\0" + short_text(exchange) + short_text(routing_key) + _MANDATORY)


def content_frames(channel: int, properties: bytes, body: bytes, max_frame_bytes: int) -> bytes:
    """Return the header frame and as many body frames as the body needs."""
    header = frame(HEADER, channel, _CONTENT.pack(_BASIC_CLASS, len(body)) + properties)
    most = max_frame_bytes - FRAME_OVERHEAD
    if len(body) <= most:
        return header + frame(BODY, channel, body) if body else header
    return header + b"".join(frame(BODY, channel, body[start : start + most]) for start in range(0, len(body), most))


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return an acknowledgement of one delivery, or with `multiple` of all up to it."""
    return _ACK_FRAME.pack(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def short_text(text: str) -> bytes:
    """Return a short string: at most 255 bytes of UTF-8. Raises ValueError for more."""
    encoded = text.encode()
    return b"%c%b" % (len(encoded), encoded)


def read_confirm(payload: bytes) -> Confirm:
    """Read the payload of an `ACK` or `NACK` that the broker sent."""
    tag, bits = _TAG.unpack_from(payload, 4)
    return Confirm(tag, bool(bits & 1), payload[:4] == ACK)


class Arrivals:
    """Puts messages together that come in several frames: a method, a header, and bodies until it is whole."""

    def __init__(self) -> None:
        self._method: bytes | None = None
        self._properties: bytes | None = None
        self._missing_bytes = 0
        self._parts: list[bytes] = []

    def begin(self, method: bytes) -> None:
        """Take the payload of a `DELIVER` or `RETURN`; its header must follow."""
        self._method = method
        self._properties = None

    def add(self, kind: int, payload: bytes) -> Arrival | None:
        """Take the next header or body; return the message once it is whole. What belongs to none is passed over."""
        if self._method is None:
            return None
        if kind == HEADER:
            _, self._missing_bytes = _CONTENT.unpack_from(payload)
            self._properties = payload[_CONTENT.size :]
            self._parts = []
        elif self._properties is not None:
            self._parts.append(payload)
            self._missing_bytes -= len(payload)
        if self._properties is None or self._missing_bytes > 0:
            return None
        method, self._method = self._method, None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return _arrival(method, self._properties, body)


def _arrival(method: bytes, properties: bytes, body: bytes) -> Arrival:
    if method[:4] == RETURN:
        return Arrival(0, "", properties, body)
    # Consumer tag, delivery tag, redelivered (1 byte), exchange, routing key.
    at = 5 + method[4]
    tag, _ = _TAG.unpack_from(method, at)
    at += _TAG.size
    at += 1 + method[at]
    return Arrival(tag, method[at + 1 : at + 1 + method[at]].decode(errors="replace"), properties, body)
