from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st

import schemas
from broker import Message
from broker.amqp_headers import from_properties, returns, to_properties

_counts = st.integers(min_value=0, max_value=2**63 - 1)
_texts = st.text(st.characters(codec="utf-8"), max_size=200)
_messages = st.builds(
    Message,
    body=st.binary(max_size=100),
    event_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    routing_key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=400),
    received_at_us=st.integers(min_value=1, max_value=2**63 - 1),
    attempt=st.integers(min_value=1, max_value=2**63 - 1),
    crashes=_counts,
    trace=_texts,
    first_failed_at_us=st.none() | _counts,
    last_failed_at_us=st.none() | _counts,
    reason=_texts,
)
_strange_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.just(Decimal("1.5"))
    | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_names = st.sampled_from(
    [
        "tiw-event-id",
        "tiw-routing-key",
        "tiw-received-at-us",
        "tiw-attempt",
        "tiw-crashes",
        "tiw-trace",
        "tiw-first-failed-at-us",
        "tiw-last-failed-at-us",
        "tiw-reason",
        "x-delivery-count",
        "x-death",
    ]
)


@given(message=_messages)
def test_a_message_comes_back_from_its_properties(message: Message) -> None:
    assert from_properties(message.body, to_properties(message), "tiw.archive") == message


@given(message=_messages)
def test_properties_can_be_sent_and_are_persistent(message: Message) -> None:
    properties = to_properties(message)
    assert properties.marshal()
    assert properties.delivery_mode == 2
    assert properties.message_id is None


@given(body=st.binary(max_size=50), headers=st.none() | st.dictionaries(_names, _strange_values))
def test_nothing_that_a_stranger_sends_is_too_strange(body: bytes, headers: dict[str, Any] | None) -> None:
    properties = spec.Basic.Properties()
    properties.headers = headers
    message = from_properties(body, properties, "their.key")
    assert message.body == body
    assert message.event_id
    assert message.attempt >= 1
    assert message.crashes >= 0
    assert returns(properties) >= 0
    assert to_properties(message).marshal()


def test_a_strangers_message_gets_the_event_id_of_its_body() -> None:
    body = b'{"EventType":"OnlineRecordStopped","EventData":{"TaskId":"t"},"Timestamp":1575545412,"SdkAppId":1}'
    message = from_properties(body, spec.Basic.Properties(), "their.key")
    assert message.event_id == schemas.decode(body, received_at_us=message.received_at_us).event_id
    assert message.routing_key == "their.key"


def test_only_the_brokers_count_says_how_often_a_message_came_back() -> None:
    assert returns(spec.Basic.Properties()) == 0
    assert returns(spec.Basic.Properties(headers={"x-delivery-count": 3})) == 3


def test_texts_fit_a_frame_and_are_utf_8() -> None:
    message = Message(
        body=b"", event_id="e", routing_key="k", received_at_us=1, reason="\ud800" + "\U0001f600" * 100_000
    )
    marshalled = to_properties(message).marshal()
    assert len(marshalled) < 64 * 1024
    assert from_properties(b"", to_properties(message), "").reason.startswith("?\U0001f600")
