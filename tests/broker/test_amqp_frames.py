"""Our frames against an independent reading and writing of AMQP."""

import itertools

from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame as their_frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from broker.amqp.wire import (
    BODY,
    FRAME_HEAD,
    FRAME_OVERHEAD,
    HEADER,
    Arrival,
    Arrivals,
    Confirm,
    ack_frame,
    content_frames,
    publish_frame,
    read_confirm,
)

_channels = st.integers(min_value=1, max_value=65535)
_names = st.text(st.characters(codec="utf-8"), max_size=60)
_tags = st.integers(min_value=0, max_value=2**63 - 1)


def _read_all(data: bytes) -> list[object]:
    frames: list[object] = []
    while data:
        size, _, read = their_frame.unmarshal(data)
        frames.append(read)
        data = data[size:]
    return frames


def _payload(data: bytes) -> bytes:
    return data[FRAME_HEAD.size : -1]


@given(channel=_channels, exchange=_names, routing_key=_names)
def test_a_publish_is_mandatory_and_names_its_way(channel: int, exchange: str, routing_key: str) -> None:
    size, on, publish = their_frame.unmarshal(publish_frame(channel, exchange, routing_key))
    assert isinstance(publish, spec.Basic.Publish)
    assert (on, publish.exchange, publish.routing_key) == (channel, exchange, routing_key)
    assert publish.mandatory
    assert not publish.immediate
    assert size == len(publish_frame(channel, exchange, routing_key))


@given(channel=_channels, body=st.binary(max_size=200), max_frame_bytes=st.integers(min_value=9, max_value=100))
def test_a_body_is_cut_into_frames_of_the_largest_size(channel: int, body: bytes, max_frame_bytes: int) -> None:
    rendered = b"".join(content_frames(channel, b"\0\0", body, max_frame_bytes))
    header, *bodies = _read_all(rendered)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    parts = [part.value for part in bodies if isinstance(part, ContentBody)]
    assert b"".join(parts) == body
    assert len(parts) == len(bodies) == -(-len(body) // (max_frame_bytes - FRAME_OVERHEAD))


@given(channel=_channels, tag=_tags, multiple=st.booleans())
def test_an_acknowledgement_says_which(channel: int, tag: int, *, multiple: bool) -> None:
    _, on, ack = their_frame.unmarshal(ack_frame(channel, tag, multiple=multiple))
    assert isinstance(ack, spec.Basic.Ack)
    assert (on, ack.delivery_tag, ack.multiple) == (channel, tag, multiple)


@given(tag=_tags, multiple=st.booleans(), requeue=st.booleans())
def test_confirms_are_read(tag: int, *, multiple: bool, requeue: bool) -> None:
    ack = their_frame.marshal(spec.Basic.Ack(delivery_tag=tag, multiple=multiple), 1)
    nack = their_frame.marshal(spec.Basic.Nack(delivery_tag=tag, multiple=multiple, requeue=requeue), 1)
    assert read_confirm(_payload(ack)) == Confirm(tag, multiple, is_kept=True)
    assert read_confirm(_payload(nack)) == Confirm(tag, multiple, is_kept=False)


@given(consumer_tag=_names, tag=_tags, redelivered=st.booleans(), key=_names, body=st.binary(max_size=100))
def test_a_delivery_is_put_together(consumer_tag: str, tag: int, key: str, body: bytes, *, redelivered: bool) -> None:
    deliver = spec.Basic.Deliver(
        consumer_tag=consumer_tag, delivery_tag=tag, redelivered=redelivered, exchange="tiw.events", routing_key=key
    )
    arrivals = Arrivals()
    arrivals.begin(_payload(their_frame.marshal(deliver, 1)))
    frames = b"".join(content_frames(1, b"\x10\0\x02", body, 40))
    arrived = [arrivals.add(kind, payload) for kind, payload in _kinds(frames)]
    assert arrived[-1] == Arrival(tag, key, b"\x10\0\x02", body)
    assert arrived[:-1] == [None] * (len(arrived) - 1)


def test_a_returned_message_keeps_its_properties() -> None:
    returned = spec.Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="x", routing_key="k")
    arrivals = Arrivals()
    arrivals.begin(_payload(their_frame.marshal(returned, 1)))
    (arrival,) = [
        arrivals.add(kind, payload) for kind, payload in _kinds(b"".join(content_frames(1, b"\0\0", b"", 40)))
    ]
    assert arrival == Arrival(0, "", b"\0\0", b"")


@given(kinds=st.lists(st.sampled_from([HEADER, BODY]), max_size=4))
def test_content_that_belongs_to_nothing_is_passed_over(kinds: list[int]) -> None:
    arrivals = Arrivals()
    assert [arrivals.add(kind, b"\0" * 14) for kind in kinds] == list(itertools.repeat(None, len(kinds)))


def _kinds(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, _, size = FRAME_HEAD.unpack_from(data)
        found.append((kind, data[FRAME_HEAD.size : FRAME_HEAD.size + size]))
        data = data[FRAME_OVERHEAD + size :]
    return found
