"""The quick way of plain messages against the general way: the same bytes out, the same messages in."""

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from broker import Message
from broker.amqp.headers import read_message, render_properties
from broker.amqp.plain import PlainDeliveries, PlainDelivery, PlainPublishes, message_id
from broker.amqp.wire import DELIVER, FRAME_HEAD, METHOD, content_frames, frame, publish_frame, short_text

_PREFIX = "0123456789abcdef-"
_MAX_FRAME_BYTES = 4096
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_PLAIN = Message(body=b"{}", event_id="e" * 32, routing_key="k", received_at_us=1_575_545_412_000_001, trace=_TRACE)

_channels = st.integers(1, 65535)
_texts = st.text(max_size=40)
_texts_of_lengths = st.one_of(
    st.text(st.characters(codec="ascii"), min_size=32, max_size=32),
    st.text(st.characters(codec="ascii"), min_size=55, max_size=55),
    st.text(st.sampled_from("\u00e9\u4e2d"), min_size=10, max_size=55),
    _texts,
    st.just(_TRACE),
    st.just("\ud800" * 32),
)
_integers = st.integers(-(2**63), 2**64)
_plain = st.builds(
    Message,
    body=st.binary(min_size=1, max_size=400),
    event_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    routing_key=st.just("k"),
    received_at_us=st.integers(1, 2**63 - 1),
    trace=st.text("0123456789abcdef-", min_size=55, max_size=55),
)
#: Plain but for some of these.
_changes = st.fixed_dictionaries(
    {},
    optional={
        "body": st.binary(max_size=20) | st.integers(4070, 4100).map(bytes),
        "event_id": _texts_of_lengths,
        "routing_key": _texts,
        "received_at_us": st.integers(-(2**63), 2**63 - 1),
        "attempt": st.integers(1, 2**63 - 1),
        "crashes": st.integers(0, 2**63 - 1),
        "trace": _texts_of_lengths,
        "source": st.sampled_from(["", "reconcile", "archive"]),
        "waiting_since_us": st.none() | st.integers(0, 2**63 - 1),
        "first_failed_at_us": st.none() | st.integers(0, 2**63 - 1),
        "last_failed_at_us": st.none() | st.integers(0, 2**63 - 1),
        "reason": _texts,
        "traceback": _texts,
    },
)


def _general(channel: int, exchange: str, message: Message, number: int) -> bytes:
    properties = render_properties(message, message_id(_PREFIX, number), routing_key="k")
    content = content_frames(channel, properties, message.body, _MAX_FRAME_BYTES)
    return publish_frame(channel, exchange, "k") + b"".join(content)


@given(channel=_channels, exchange=st.text(max_size=20), message=_plain, number=st.integers(1, 16**10 - 1))
def test_a_plain_message_is_published_in_the_same_bytes(
    channel: int, exchange: str, message: Message, number: int
) -> None:
    frames = PlainPublishes(channel, exchange, "k", _PREFIX, _MAX_FRAME_BYTES).frames(message, number)
    assert frames is not None
    assert b"".join(frames) == _general(channel, exchange, message, number)


@given(message=_plain, changes=_changes, number=st.integers(1, 2**48))
@example(message=_PLAIN, changes={"body": bytes(_MAX_FRAME_BYTES - 8)}, number=16**10)
@example(message=_PLAIN, changes={"event_id": "\u00e9" * 16}, number=1)
def test_whatever_is_published_quickly_is_in_the_same_bytes(
    message: Message, changes: dict[str, object], number: int
) -> None:
    message = structs.replace(message, **changes)
    frames = PlainPublishes(7, "tiw.events", "k", _PREFIX, _MAX_FRAME_BYTES).frames(message, number)
    assert frames is None or b"".join(frames) == _general(7, "tiw.events", message, number)


def test_what_no_frame_can_hold_is_left_to_the_general_way() -> None:
    publishes = PlainPublishes(7, "tiw.events", "k", _PREFIX, _MAX_FRAME_BYTES)
    for received_at_us in (2**63, -(2**63) - 1):
        assert publishes.frames(structs.replace(_PLAIN, received_at_us=received_at_us), 1) is None


def _delivered(
    channel: int, message: Message, *, tag: int, routing_key: str, properties: bytes, redelivered: bool = False
) -> bytes:
    deliver = DELIVER + short_text("ctag1.0") + tag.to_bytes(8) + bytes([redelivered])
    method = frame(METHOD, channel, deliver + short_text("tiw.events") + short_text(routing_key))
    return method + b"".join(content_frames(channel, properties, message.body, 4096))


def _read(deliveries: PlainDeliveries, data: bytes, before: int) -> PlainDelivery | None:
    (_, _, size) = FRAME_HEAD.unpack_from(data, before)
    return deliveries.read(data, before, before + FRAME_HEAD.size + size + 1)


def _learnt(channel: int, message: Message, properties: bytes, routing_key: str) -> PlainDeliveries:
    deliveries = PlainDeliveries(channel)
    general, _, _ = read_message(message.body, properties, routing_key)
    deliveries.learn(general, properties, routing_key)
    return deliveries


@given(
    channel=_channels,
    messages=st.lists(st.tuples(_plain, st.booleans()), min_size=1, max_size=5),
    routing_key=st.sampled_from(["k", "OnlineRecordFinished", "\u4e2d"]),
    published_with=st.sampled_from(["k", "OnlineRecordFinished", "tiw.archive", ""]),
    trace=st.none() | st.text("abct-", max_size=60),
    prefix=st.text("abcp-", max_size=30),
    first_tag=st.integers(1, 2**62),
)
@example(
    channel=1,
    messages=[(_PLAIN, False)],
    routing_key="k",
    published_with="t" * 60,
    trace="t" * 55,
    prefix="p",
    first_tag=1,
)
def test_plain_deliveries_of_one_shape_are_read_one_behind_the_other(
    *,
    channel: int,
    messages: list[tuple[Message, bool]],
    routing_key: str,
    published_with: str,
    trace: str | None,
    prefix: str,
    first_tag: int,
) -> None:
    data = b"before"
    expected = []
    deliveries = PlainDeliveries(channel)
    for tag, (plain, redelivered) in enumerate(messages, first_tag):
        message = structs.replace(plain, routing_key=routing_key, trace=plain.trace if trace is None else trace)
        own_id = message_id(prefix, tag % 16**10)
        properties = render_properties(message, own_id, routing_key=published_with)
        general = read_message(message.body, properties, published_with)
        assert general == (message, 0, "")
        deliveries.learn(general[0], properties, published_with)
        data += _delivered(
            channel, message, tag=tag, routing_key=published_with, properties=properties, redelivered=redelivered
        )
        expected.append((tag, message, len(data)))
    at = len(b"before")
    for delivery in expected:
        assert _read(deliveries, data + b"\x01behind", at) == delivery
        at = delivery[2]


@given(
    learnt=_plain,
    learnt_changes=_changes,
    message=_plain,
    changes=_changes,
    properties=st.none() | st.binary(max_size=300),
    places=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3),
    cut=st.none() | st.integers(0, 1000),
)
def test_whatever_is_read_quickly_is_what_the_general_way_reads(
    *,
    learnt: Message,
    learnt_changes: dict[str, object],
    message: Message,
    changes: dict[str, object],
    properties: bytes | None,
    places: list[tuple[int, int]],
    cut: int | None,
) -> None:
    """Bytes near those of a plain message: other properties, single bytes changed, and cut anywhere."""
    message = structs.replace(message, **changes)
    rendered = render_properties(message, message_id(_PREFIX, 1), routing_key="k")
    changed = bytearray(rendered if properties is None else properties)
    for place, byte in places:
        if place < len(changed):
            changed[place] = byte
    data = _delivered(7, message, tag=5, routing_key="k", properties=bytes(changed))
    (_, _, size) = FRAME_HEAD.unpack_from(data)
    method_end = FRAME_HEAD.size + size + 1
    whole = len(data)
    if cut is not None:
        data = data[: max(cut, method_end)]
    learnt = structs.replace(learnt, **learnt_changes)
    taught = render_properties(learnt, message_id(_PREFIX, 2), routing_key="k")
    for deliveries in (_learnt(7, learnt, taught, "k"), _learnt(7, message, bytes(changed), "k")):
        found = _read(deliveries, data, 0)
        if found is not None:
            assert len(data) == whole
            assert (found.message, 0, "") == read_message(message.body, bytes(changed), "k")
            assert (found.tag, found.end) == (5, whole)


def test_what_came_back_or_is_on_another_channel_is_left_to_the_general_way() -> None:
    properties = render_properties(_PLAIN, message_id(_PREFIX, 1), routing_key="k")
    data = _delivered(7, _PLAIN, tag=5, routing_key="k", properties=properties)
    deliveries = _learnt(7, _PLAIN, properties, "k")
    assert _read(deliveries, data, 0) is not None
    assert _read(_learnt(8, _PLAIN, properties, "k"), data, 0) is None
    count = b"\x10x-delivery-countl" + (1).to_bytes(8)
    size_at = len(b"\xb0\x80\x10application/json")
    table_size = int.from_bytes(properties[size_at : size_at + 4])
    table_end = size_at + 4 + table_size
    returned = (
        properties[:size_at]
        + (table_size + len(count)).to_bytes(4)
        + properties[size_at + 4 : table_end]
        + count
        + properties[table_end:]
    )
    assert read_message(b"{}", returned, "k") == (_PLAIN, 1, "")
    deliveries.learn(_PLAIN, returned, "k")
    assert _read(deliveries, _delivered(7, _PLAIN, tag=5, routing_key="k", properties=returned), 0) is None


def test_no_more_shapes_and_routes_are_remembered_than_have_room() -> None:
    deliveries = PlainDeliveries(7)
    for number in range(200):
        message = structs.replace(_PLAIN, routing_key=f"k{number}", trace="t" * number)
        properties = render_properties(message, message_id(_PREFIX, 1), routing_key=message.routing_key)
        deliveries.learn(message, properties, message.routing_key)
        _read(deliveries, _delivered(7, message, tag=5, routing_key=message.routing_key, properties=properties), 0)
        message = structs.replace(_PLAIN, routing_key=f"k{number}")
        properties = render_properties(message, message_id(_PREFIX, 1), routing_key=message.routing_key)
        found = _read(
            deliveries, _delivered(7, message, tag=5, routing_key=message.routing_key, properties=properties), 0
        )
        assert found is None or found.message == message
    assert len(deliveries._routing_keys) <= 64
    assert len(deliveries._shapes) <= 64
