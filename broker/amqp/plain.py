"""Events as nearly all of them are, published and read in one step each.

A plain message is one that no handler has had yet, without a source and with an event_id of our length. The frames of
all that have the same shape differ in a few places only, so that one `struct` holds them. Everything else takes the
general way, through `broker.amqp.headers` and `broker.amqp.wire`: the layouts here are cut out of what those write, and
give the same.
"""

from struct import Struct as Layout
from struct import error as LayoutError  # noqa: N812 - an exception's name
from typing import NamedTuple

from msgspec import structs

from broker.amqp.headers import message_id_of, render_properties
from broker.amqp.wire import DELIVER, FRAME_END, FRAME_HEAD, FRAME_OVERHEAD, Piece, content_frames, publish_frame
from broker.api import Message

#: Of what counts the publishes of a channel in their message ids.
_NUMBER_CHARACTERS = 10
_HIGHEST_NUMBER = 16**_NUMBER_CHARACTERS - 1

_EVENT_ID, _TRACE = b"e" * 32, b"t" * 55
_RECEIVED_AT_US = 0x1F1E1D1C1B1A1918
_SAMPLE = Message(
    body=b"?",
    event_id=_EVENT_ID.decode(),
    routing_key="",
    received_at_us=_RECEIVED_AT_US,
    trace=_TRACE.decode(),
)
_END = bytes((FRAME_END,))
_TAG = Layout(">Q")
#: Of the payload of a header frame: class, weight and the body's size.
_BEFORE_PROPERTIES = 12


def message_id(prefix: str, number: int) -> str:
    """Return the message id of a publish by its number on its channel; `prefix` is the channel's own."""
    return f"{prefix}{number:0{_NUMBER_CHARACTERS}x}"


class _Constants(NamedTuple):
    """What stands before, between and behind the places that differ, from the header frame to the body's head."""

    header_head: bytes
    to_event_id: bytes
    to_received_at: bytes
    to_trace: bytes
    to_message_id: bytes
    to_body_size: bytes


def _constants(channel: int, *, routing_key: str, trace_bytes: int, id_bytes: int) -> _Constants:
    """Return those of messages with `routing_key` in a header, unless it is empty, and texts of these lengths."""
    sample = structs.replace(_SAMPLE, routing_key=routing_key, trace="t" * trace_bytes)
    properties = render_properties(sample, "p" * id_bytes)
    frames = b"".join(content_frames(channel, properties, sample.body, 4096))
    header_head, _, body_frame = frames.partition(properties)
    to_event_id, _, rest = properties[:-id_bytes].partition(_EVENT_ID)
    to_received_at, _, rest = rest.partition(_RECEIVED_AT_US.to_bytes(8))
    # The trace is the last of the headers.
    to_trace, _, to_message_id = rest.rpartition(sample.trace.encode()) if trace_bytes else (b"", b"", rest)
    # Behind the first are the body's size, in 8 bytes, and behind the last the size of its frame, in 4.
    return _Constants(header_head[:-8], to_event_id, to_received_at, to_trace, to_message_id, body_frame[:4])


class PlainPublishes:
    """Writes the plain messages of one channel to one exchange with one routing key.

    `prefix` is that of the channel's message ids.
    """

    def __init__(self, channel: int, exchange: str, routing_key: str, prefix: str, max_frame_bytes: int) -> None:
        self._routing_key = routing_key
        self._largest_body = max_frame_bytes - FRAME_OVERHEAD
        constants = _constants(
            channel, routing_key="", trace_bytes=len(_TRACE), id_bytes=len(prefix) + _NUMBER_CHARACTERS
        )
        self._head = publish_frame(channel, exchange, routing_key) + constants.header_head
        _, self._to_event_id, self._to_received_at, self._to_trace, to_message_id, self._to_body_size = constants
        self._to_number = to_message_id + prefix.encode()
        self._pack = Layout(
            f">{len(self._head)}sQ{len(self._to_event_id)}s{len(_EVENT_ID)}s{len(self._to_received_at)}sq"
            f"{len(self._to_trace)}s{len(_TRACE)}s{len(self._to_number)}s{_NUMBER_CHARACTERS}s{len(self._to_body_size)}sI"
        ).pack

    def frames(self, message: Message, number: int) -> tuple[Piece, ...] | None:
        """Return all frames of a publish, as the general way writes them; None if the message is not plain."""
        size = len(message.body)
        if (
            not 0 < size <= self._largest_body
            or message.attempt != 1
            or message.crashes
            or message.source
            or message.waiting_since_us is not None
            or message.first_failed_at_us is not None
            or message.last_failed_at_us is not None
            or message.reason
            or message.traceback
            or message.routing_key != self._routing_key
            or number > _HIGHEST_NUMBER
        ):
            return None
        try:
            event_id, trace = message.event_id.encode(), message.trace.encode()
            if len(event_id) != len(_EVENT_ID) or len(trace) != len(_TRACE):
                return None
            head = self._pack(
                self._head,
                size,
                self._to_event_id,
                event_id,
                self._to_received_at,
                message.received_at_us,
                self._to_trace,
                trace,
                self._to_number,
                b"%010x" % number,
                self._to_body_size,
                size,
            )
        except (UnicodeEncodeError, LayoutError):
            return None
        return head, message.body, _END


class PlainDelivery(NamedTuple):
    """A plain message that was delivered, and where the next frame begins."""

    tag: int
    message: Message
    end: int


#: More are not remembered: others may publish with whatever they like.
_MOST_ROUTES = 64
_MOST_SIZES = 64


class _Shape(NamedTuple):
    """Header frames of one size. `routing_key` is what they have in a header; empty: it is that of the delivery."""

    layout: Layout
    constants: _Constants
    routing_key: str


class PlainDeliveries:
    """Reads the plain messages that are delivered on one channel, once the general way has read one of their shape."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        #: By the sizes of their properties; None for what is not plain.
        self._shapes: dict[int, _Shape | None] = {}
        #: By what stands behind the delivery tag.
        self._routing_keys: dict[bytes, str] = {}

    def read(self, data: bytes, at: int, header_at: int) -> PlainDelivery | None:
        """Read the message that is delivered by the method frame from `at` to `header_at`.

        None if there is none, or it is not plain, or not whole. It is as `read_message` reads it, and nobody took it
        out of a queue.
        """
        if len(data) <= header_at + FRAME_HEAD.size or not data.startswith(DELIVER, at + FRAME_HEAD.size):
            return None
        _, _, header_size = FRAME_HEAD.unpack_from(data, header_at)
        shape = self._shapes.get(header_size - _BEFORE_PROPERTIES)
        if shape is None or (body_at := header_at + shape.layout.size) >= len(data):
            return None
        head, size, to_event_id, event_id, to_received_at, received_at_us, to_trace, trace, to_id, to_size, frame = (
            shape.layout.unpack_from(data, header_at)
        )
        end = body_at + size + 1
        if (
            (head, to_event_id, to_received_at, to_trace, to_id, to_size) != shape.constants
            or frame != size
            or received_at_us <= 0
            or end > len(data)
            or data[end - 1] != FRAME_END
        ):
            return None
        tag_at = at + FRAME_HEAD.size + 5 + data[at + FRAME_HEAD.size + 4]
        (tag,) = _TAG.unpack_from(data, tag_at)
        route = data[tag_at + _TAG.size : header_at]
        try:
            message = Message(
                body=data[body_at : end - 1],
                event_id=event_id.decode(),
                routing_key=shape.routing_key or self._routing_keys.get(route) or self._routing_key(route),
                received_at_us=received_at_us,
                trace=trace.decode(),
            )
        except UnicodeDecodeError:
            return None
        return PlainDelivery(tag, message, end)

    def learn(self, message: Message, properties: bytes, routing_key: str) -> None:
        """Look at what the general way has read, of a delivery with `routing_key`: others may have the same shape."""
        if len(properties) not in self._shapes and len(self._shapes) < _MOST_SIZES:
            self._shapes[len(properties)] = self._shape(message, properties, routing_key)

    def _shape(self, message: Message, properties: bytes, routing_key: str) -> _Shape | None:
        event_id, trace = message.event_id.encode(), message.trace.encode()
        plain = Message(
            body=message.body,
            event_id=message.event_id,
            routing_key=message.routing_key,
            received_at_us=message.received_at_us,
            trace=message.trace,
        )
        try:
            own_id = message_id_of(properties)
            is_ours = render_properties(plain, own_id, routing_key=routing_key) == properties
        except (LayoutError, IndexError, UnicodeDecodeError):
            return None
        if plain != message or not is_ours or len(event_id) != len(_EVENT_ID) or not own_id:
            return None
        in_header = message.routing_key if message.routing_key != routing_key else ""
        constants = _constants(self._channel, routing_key=in_header, trace_bytes=len(trace), id_bytes=len(own_id))
        layout = Layout(
            f">{len(constants.header_head)}sQ{len(constants.to_event_id)}s{len(_EVENT_ID)}s"
            f"{len(constants.to_received_at)}sq{len(constants.to_trace)}s{len(trace)}s{len(constants.to_message_id)}s"
            f"{len(own_id)}x{len(constants.to_body_size)}sI"
        )
        return _Shape(layout, constants, in_header)

    def _routing_key(self, route: bytes) -> str:
        # Redelivered (1 byte), exchange, routing key, the frame's end.
        at = 2 + route[1]
        routing_key = route[at + 1 : at + 1 + route[at]].decode(errors="replace")
        if len(self._routing_keys) < _MOST_ROUTES:
            self._routing_keys[route] = routing_key
        return routing_key
