"""What a broker delivers: frames in any pieces, and headers that anybody may have written."""

import asyncio

from broker.amqp import wire as amqp_wire
from broker.amqp.headers import MAX_TEXT_CHARACTERS, message_id_of, read_message, render_properties
from broker.amqp.plain import PlainDeliveries
from broker.amqp.wire import (
    BODY,
    DELIVER,
    FRAME_HEAD,
    FRAME_OVERHEAD,
    HEADER,
    METHOD,
    Arrival,
    Arrivals,
    content_frames,
    frame,
    short_text,
)
from broker.api import Message
from chaos.fuzzing.outcome import promise
from chaos.fuzzing.standing_loop import StandingLoop

_MAX_INTEGER = 2**63 - 1
_BODY = b"{}"

#: The channel whose frames are taken.
_CHANNEL = 7
_FEW = 8


def headers(properties: bytes) -> None:
    """Whatever stands in the properties: make a message that reads the same when it is published again."""
    message, returns, _ = read_message(_BODY, properties, "key")
    promise(0 <= returns <= _MAX_INTEGER, "a delivery count is a count")
    promise(message.attempt >= 1, "attempts count from 1")
    promise(message.event_id and message.routing_key, "a message has an event_id and a routing key")
    rendered = render_properties(message, "id")
    promise(message_id_of(rendered) == "id", "the message id is found again")
    again, _, _ = read_message(_BODY, rendered, "another key")
    promise(again == _cut(message), "a message that is published again is the same message")
    _read_both_ways(message, rendered)
    _read_both_ways(message, properties)


def _read_both_ways(learnt: Message, properties: bytes) -> None:
    """Read a delivery in one step, if that can be, and the general way."""
    deliver = DELIVER + short_text("c") + (1).to_bytes(8) + b"\0" + short_text("") + short_text("key")
    method = frame(METHOD, _CHANNEL, deliver)
    data = method + b"".join(content_frames(_CHANNEL, properties, _BODY, max_frame_bytes=2**20))
    plain = PlainDeliveries(_CHANNEL)
    plain.learn(learnt, properties, "key")
    found = plain.read(data, 0, len(method))
    if found is not None:
        promise((found.message, 0, "") == read_message(_BODY, properties, "key"), "both ways read the same message")
        promise(found.end == len(data), "a message ends where its last frame does")


def frames(data: bytes) -> None:
    """Take the same frames of a stream, and pass the same bytes on, however it is cut into pieces."""
    whole = _taken_and_passed_on([data])
    size = data[0] % _FEW + 1 if data else 1
    pieces = _taken_and_passed_on([data[at : at + size] for at in range(0, len(data), size)])
    promise(pieces == whole, "where a stream is cut makes no difference")
    taken, others = whole
    promise(
        sum(len(payload) + FRAME_OVERHEAD for _, payload in taken) + len(others) == len(data),
        "each byte that arrives is taken or passed on",
    )


def deliveries(data: bytes) -> None:
    """Put a message together that was cut into frames, whatever came before it."""
    arrivals = Arrivals()
    half = len(data) // 2
    body, properties = data[:half], b"\0\0" + data[half:]
    routing_key = data[:60].decode("latin-1")[:60]
    tag = int.from_bytes(data[:7])
    method = DELIVER + short_text("c") + tag.to_bytes(8) + b"\0" + short_text("") + short_text(routing_key)
    for kind in data[:_FEW]:
        arrivals.add(HEADER if kind & 1 else BODY, bytes(12))  # belongs to nothing: is passed over
    arrivals.begin(method)
    stream = b"".join(content_frames(_CHANNEL, properties, body, max_frame_bytes=_FEW + 1 + (len(data) % 64)))
    found: list[Arrival | None] = []
    while stream:
        kind, _, size = FRAME_HEAD.unpack_from(stream)
        found.append(arrivals.add(kind, stream[FRAME_HEAD.size : FRAME_HEAD.size + size]))
        stream = stream[FRAME_HEAD.size + size + 1 :]
    expected = Arrival(tag, routing_key, properties, body)
    promise(found[-1] == expected and not any(found[:-1]), "a message is whole with its last frame")
    promise(arrivals.add(BODY, body) is None, "what comes after a message belongs to none")


def _cut(message: Message) -> Message:
    texts = ("event_id", "routing_key", "trace", "reason")
    cut = {name: getattr(message, name)[:MAX_TEXT_CHARACTERS] for name in texts}
    values = {name: getattr(message, name) for name in message.__struct_fields__}
    return Message(**(values | cut))


def _taken_and_passed_on(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the frames that are taken of a stream on one channel, and what is left for the library."""
    taken: list[tuple[int, bytes]] = []

    def take(kind: int, payload: bytes) -> bool:
        taken.append((kind, payload))
        return True

    async def feed() -> bytes:
        wire = amqp_wire.Wire()
        wire.attach(_CHANNEL, take)
        reader = asyncio.StreamReader()
        # The one place where bytes become frames; the way to it leads through a connection.
        separator = amqp_wire._Separator(reader, wire)  # noqa: SLF001 - see above
        for piece in pieces:
            separator.data_received(piece)
        separator.eof_received()
        return await reader.read()

    others = StandingLoop().run(feed())  # type: ignore[abstract]  # nothing else of a loop is called
    return taken, others
