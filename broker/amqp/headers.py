"""A message as AMQP carries it: the body is the body, everything else is headers named `tiw-...`.

Headers are made anew for every publish. What a broker or another client put there (`x-death`, for one) is never
copied: old `x-` headers sent again change what the broker does with a message.

Both directions are written out here, for speed and for robustness: of foreign headers only the names that count
are decoded, and the rest is stepped over, whatever it holds. The encoding is that of RabbitMQ:
https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
"""

import time
from collections.abc import Iterator, Mapping
from struct import Struct as Layout
from struct import error as LayoutError  # noqa: N812 - an exception's name
from typing import Final, TypeAlias

import schemas
from broker.api import MAX_TRACEBACK_BYTES, Headers, Message, source_word
from broker.topology import RETRY_QUEUES

#: A header frame is not split, and a frame has 128 KiB: longer texts are cut.
MAX_TEXT_CHARACTERS: Final = 4096

#: How often a quorum queue saw a message come back; it is absent on the first delivery:
#: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_COUNT = "x-delivery-count"

#: What the broker notes when it dead-letters a message, the newest first: https://www.rabbitmq.com/docs/dlx#effects
DEATHS = "x-death"

_MAX_INTEGER: Final = 2**63 - 1

#: The flags of content type, headers, delivery mode and message id, and the first of them.
_BEGINNING = b"\xb0\x80\x10application/json"
_HAS_CONTENT_TYPE, _HAS_CONTENT_ENCODING, _HAS_HEADERS = 1 << 15, 1 << 14, 1 << 13
_PERSISTENT = b"\x02"

_LENGTH = Layout(">I")
_INTEGERS = {
    kind: Layout(">" + layout)
    for kind, layout in zip(b"bBsuIilL", ("b", "B", "h", "H", "i", "I", "q", "q"), strict=True)
}
#: The sizes in bytes of values that have one.
_SIZES = {ord("V"): 0, ord("t"): 1, ord("f"): 4, ord("D"): 5, ord("d"): 8, ord("T"): 8} | {
    kind: layout.size for kind, layout in _INTEGERS.items()
}
#: These begin with their length.
_MEASURED = frozenset(b"SxAF")
_TEXT, _ARRAY, _TABLE = ord("S"), ord("A"), ord("F")


def _text_name(name: str) -> bytes:
    return b"%c%bS" % (len(name), name.encode())


def _integer_name(name: str) -> bytes:
    return b"%c%bl" % (len(name), name.encode())


_EVENT_ID, _ROUTING_KEY, _TRACE, _SOURCE, _REASON, _TRACEBACK = map(
    _text_name,
    (Headers.EVENT_ID, Headers.ROUTING_KEY, Headers.TRACE, Headers.SOURCE, Headers.REASON, Headers.TRACEBACK),
)
_RECEIVED_AT_US, _ATTEMPT, _CRASHES = map(_integer_name, (Headers.RECEIVED_AT_US, Headers.ATTEMPT, Headers.CRASHES))
_WAITING_SINCE_US, _FIRST_FAILED_AT_US, _LAST_FAILED_AT_US = map(
    _integer_name, (Headers.WAITING_SINCE_US, Headers.FIRST_FAILED_AT_US, Headers.LAST_FAILED_AT_US)
)
_KNOWN: Final = {
    name.encode(): name
    for name in (
        *(
            Headers.EVENT_ID,
            Headers.ROUTING_KEY,
            Headers.RECEIVED_AT_US,
            Headers.ATTEMPT,
            Headers.CRASHES,
            Headers.TRACE,
            Headers.SOURCE,
            Headers.WAITING_SINCE_US,
        ),
        *(Headers.FIRST_FAILED_AT_US, Headers.LAST_FAILED_AT_US, Headers.REASON, Headers.TRACEBACK),
        *(DELIVERY_COUNT, DEATHS),
    )
}
#: Of a death.
_DEATH: Final = {b"queue": "queue", b"reason": "reason"}

_Headers: TypeAlias = dict[str, int | bytes]


def render_properties(message: Message, message_id: str, *, routing_key: str = "") -> bytes:
    """Return the properties to publish `message` with: flags, content type, headers, persistent, message id.

    Texts are cut at `MAX_TEXT_CHARACTERS`, tracebacks to the last `MAX_TRACEBACK_BYTES`, and what UTF-8 cannot express
    (unpaired surrogates) is replaced.
    `message_id` is at most 255 ASCII characters. What `read_message` takes for granted stands in no header: the broker
    decodes each. So does the message's routing key where it is published with that, `routing_key`.
    """
    table = [_text(_EVENT_ID, message.event_id), _integer(_RECEIVED_AT_US, message.received_at_us)]
    if message.routing_key != routing_key:
        table.append(_text(_ROUTING_KEY, message.routing_key))
    if message.attempt != 1:
        table.append(_integer(_ATTEMPT, message.attempt))
    if message.trace:
        table.append(_text(_TRACE, message.trace))
    if message.source:
        table.append(_text(_SOURCE, message.source))
    if message.waiting_since_us is not None:
        table.append(_integer(_WAITING_SINCE_US, message.waiting_since_us))
    if message.crashes:
        table.append(_integer(_CRASHES, message.crashes))
    table += _failure(message)
    headers = b"".join(table)
    return b"%b%b%b%b%c%b" % (
        _BEGINNING,
        _LENGTH.pack(len(headers)),
        headers,
        _PERSISTENT,
        len(message_id),
        message_id.encode(),
    )


def _failure(message: Message) -> Iterator[bytes]:
    if message.first_failed_at_us is not None:
        yield _integer(_FIRST_FAILED_AT_US, message.first_failed_at_us)
    if message.last_failed_at_us is not None:
        yield _integer(_LAST_FAILED_AT_US, message.last_failed_at_us)
    if message.reason:
        yield _text(_REASON, message.reason)
    if message.traceback:
        yield _end_of_text(_TRACEBACK, message.traceback)


def message_id_of(properties: bytes) -> str:
    """Return the message id out of properties that `render_properties` made."""
    (size,) = _LENGTH.unpack_from(properties, len(_BEGINNING))
    at = len(_BEGINNING) + _LENGTH.size + size + len(_PERSISTENT)
    return properties[at + 1 : at + 1 + properties[at]].decode()


def read_message(body: bytes, properties: bytes, routing_key: str) -> tuple[Message, int, str]:
    """Return the message that was delivered, how often it came back since it was published, and what took it out.

    The last is why the broker itself took it out of a consumer's queue; empty if it did not.

    Whoever published it, and whatever its headers hold, nothing is raised. `routing_key` is that of the delivery; it
    counts where no header has another. A foreign message, without our event_id, gets that of its body.
    """
    headers = _read_headers(properties)
    received_at_us = _count(headers, Headers.RECEIVED_AT_US) or time.time_ns() // 1000
    event_id = _read_text(headers, Headers.EVENT_ID) or schemas.decode(body, received_at_us=received_at_us).event_id
    message = Message(
        body=body,
        event_id=event_id,
        routing_key=_read_text(headers, Headers.ROUTING_KEY) or routing_key,
        received_at_us=received_at_us,
        attempt=_count(headers, Headers.ATTEMPT) or 1,
        crashes=_count(headers, Headers.CRASHES) or 0,
        trace=_read_text(headers, Headers.TRACE),
        source=source_word(_read_text(headers, Headers.SOURCE)) if Headers.SOURCE in headers else "",
        waiting_since_us=_count(headers, Headers.WAITING_SINCE_US),
        first_failed_at_us=_count(headers, Headers.FIRST_FAILED_AT_US),
        last_failed_at_us=_count(headers, Headers.LAST_FAILED_AT_US),
        reason=_read_text(headers, Headers.REASON),
        traceback=_read_text(headers, Headers.TRACEBACK),
    )
    taken_out = _taken_out(headers) if "reason" in headers else ""
    return message, _count(headers, DELIVERY_COUNT) or 0, taken_out


def _taken_out(headers: _Headers) -> str:
    # The end of a retry delay is no other thing to the broker.
    return "" if _read_text(headers, "queue").startswith(RETRY_QUEUES) else _read_text(headers, "reason")


def _text(name: bytes, value: str) -> bytes:
    encoded = value[:MAX_TEXT_CHARACTERS].encode(errors="replace")
    return b"%b%b%b" % (name, _LENGTH.pack(len(encoded)), encoded)


def _end_of_text(name: bytes, value: str) -> bytes:
    encoded = value.encode(errors="replace")
    if len(encoded) > MAX_TRACEBACK_BYTES:
        # Without the rest of a character that was cut.
        encoded = encoded[-MAX_TRACEBACK_BYTES:].decode(errors="ignore").encode()
    return b"%b%b%b" % (name, _LENGTH.pack(len(encoded)), encoded)


def _integer(name: bytes, value: int) -> bytes:
    return name + value.to_bytes(8, signed=True)


def _read_headers(properties: bytes) -> _Headers:
    """Return what can be read of the headers that count; of the same name twice, the last."""
    try:
        flags = int.from_bytes(properties[:2])
        if not flags & _HAS_HEADERS:
            return {}
        at = 2
        for flag in (_HAS_CONTENT_TYPE, _HAS_CONTENT_ENCODING):
            if flags & flag:
                at += 1 + properties[at]
        (size,) = _LENGTH.unpack_from(properties, at)
        return _read_table(properties, at + _LENGTH.size, at + _LENGTH.size + size)
    except (LayoutError, IndexError):
        # The broker has checked the frame; what is inside of it may still be anything.
        return {}


def _read_table(table: bytes, at: int, end: int, known: Mapping[bytes, str] = _KNOWN) -> _Headers:
    headers: _Headers = {}
    while at < end:
        name_end = at + 1 + table[at]
        name, kind = known.get(table[at + 1 : name_end]), table[name_end]
        at = name_end + 1
        if kind in _MEASURED:
            (size,) = _LENGTH.unpack_from(table, at)
            at += _LENGTH.size
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            break  # nobody knows where the next one begins
        if name is not None:
            if kind == _TEXT:
                headers[name] = table[at : at + size]
            elif kind in _INTEGERS:
                (headers[name],) = _INTEGERS[kind].unpack_from(table, at)
            elif kind == _ARRAY and size and table[at] == _TABLE:
                (newest_size,) = _LENGTH.unpack_from(table, at + 1)
                newest_at = at + 1 + _LENGTH.size
                headers |= _read_table(table, newest_at, min(newest_at + newest_size, end), _DEATH)
        at += size
    return headers


def _read_text(headers: _Headers, name: str) -> str:
    value = headers.get(name, b"")
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _count(headers: _Headers, name: str) -> int | None:
    value = headers.get(name)
    return value if isinstance(value, int) and 0 <= value <= _MAX_INTEGER else None
