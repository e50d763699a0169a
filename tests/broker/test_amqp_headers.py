import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiormq import spec
from hypothesis import given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

import schemas
from broker import MAX_TRACEBACK_BYTES, Message
from broker.amqp.headers import message_id_of, read_message, render_properties

_counts = st.integers(min_value=0, max_value=2**63 - 1)
_texts = st.text(st.characters(codec="utf-8"), max_size=200)
_words = st.text("abcxyz0189_-", max_size=32)
_messages = st.builds(
    Message,
    body=st.binary(max_size=100),
    event_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    routing_key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=400),
    received_at_us=st.integers(min_value=1, max_value=2**63 - 1),
    attempt=st.integers(min_value=1, max_value=2**63 - 1),
    crashes=_counts,
    trace=_texts,
    source=_words,
    waiting_since_us=st.none() | _counts,
    first_failed_at_us=st.none() | _counts,
    last_failed_at_us=st.none() | _counts,
    reason=_texts,
    traceback=_texts,
)
_strange_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(width=32)
    | st.text(st.characters(codec="utf-8"))
    | st.binary().map(bytearray)
    | st.just(Decimal("1.5"))
    | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner)
    ),
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
        "tiw-source",
        "tiw-waiting-since-us",
        "tiw-first-failed-at-us",
        "tiw-last-failed-at-us",
        "tiw-reason",
        "tiw-traceback",
        "x-delivery-count",
        "x-death",
    ]
)


def _theirs(**properties: Any) -> bytes:
    """Return properties as another library writes them."""
    return spec.Basic.Properties(**properties).marshal()


@given(message=_messages)
def test_a_message_comes_back_from_its_properties(message: Message) -> None:
    assert read_message(message.body, render_properties(message, "m"), "tiw.archive") == (message, 0, "")


@given(message=_messages, same=st.booleans())
def test_a_routing_key_that_the_delivery_has_stands_in_no_header(message: Message, *, same: bool) -> None:
    published_with = message.routing_key if same else "tiw.archive"
    rendered = render_properties(message, "m", routing_key=published_with)
    assert (b"tiw-routing-key" in rendered) == (published_with != message.routing_key)
    assert read_message(message.body, rendered, published_with) == (message, 0, "")


@given(message=_messages, message_id=st.text("0123456789abcdef-", max_size=255))
def test_other_libraries_read_our_properties(message: Message, message_id: str) -> None:
    rendered = render_properties(message, message_id)
    header = ContentHeader()
    header.unmarshal(b"\0\x3c\0\0" + len(message.body).to_bytes(8) + rendered)
    theirs = header.properties
    assert theirs.delivery_mode == 2
    assert theirs.content_type == "application/json"
    assert (theirs.message_id or "") == message_id == message_id_of(rendered)
    headers = theirs.headers or {}
    assert headers["tiw-event-id"] == message.event_id
    assert headers.get("tiw-attempt", 1) == message.attempt
    assert headers["tiw-routing-key"] == message.routing_key
    assert headers.get("tiw-reason", "") == message.reason
    assert headers.get("tiw-traceback", "") == message.traceback
    assert headers.get("tiw-last-failed-at-us") == message.last_failed_at_us


@given(message=_messages)
def test_it_is_read_whoever_wrote_the_same_headers(message: Message) -> None:
    headers = {
        "tiw-event-id": message.event_id,
        "tiw-routing-key": message.routing_key,
        "tiw-received-at-us": message.received_at_us,
        "tiw-attempt": message.attempt,
        "tiw-crashes": message.crashes,
        "tiw-trace": message.trace,
        "tiw-source": message.source,
        "tiw-waiting-since-us": message.waiting_since_us,
        "tiw-first-failed-at-us": message.first_failed_at_us,
        "tiw-last-failed-at-us": message.last_failed_at_us,
        "tiw-reason": message.reason,
        "tiw-traceback": message.traceback,
        "tiw-of-a-later-version": {"n": 1},
        "x-delivery-count": 7,
    }
    assert read_message(message.body, _theirs(headers=headers, content_encoding="x"), "k") == (message, 7, "")


@given(
    body=st.binary(max_size=50),
    headers=st.none() | st.dictionaries(_names, _strange_values),
    content_type=st.none() | st.just("text/strange"),
)
def test_nothing_that_somebody_else_sends_is_too_strange(
    body: bytes, headers: dict[str, Any] | None, content_type: str | None
) -> None:
    message, returns, _ = read_message(body, _theirs(headers=headers, content_type=content_type), "their.key")
    assert message.body == body
    assert message.event_id
    assert message.attempt >= 1
    assert message.crashes >= 0
    assert returns >= 0
    assert re.fullmatch("[a-z0-9_-]{0,32}", message.source)
    assert render_properties(message, "m")


@given(properties=st.binary(max_size=100) | st.binary(max_size=100).map(lambda some: b"\x20\0" + some))
def test_nothing_is_raised_for_any_bytes(properties: bytes) -> None:
    message, returns, _ = read_message(b"{}", properties, "their.key")
    assert message.event_id
    assert returns >= 0


@pytest.mark.parametrize("foreign", ["x-before", "zz-after"])
def test_what_cannot_be_decoded_hides_nothing_that_can(foreign: str) -> None:
    unreadable = spec.Basic.Properties(headers={"x-delivery-count": 5, foreign: "strange"}).marshal()
    unreadable = unreadable.replace(b"strange", b"\xff" * 7).replace(foreign.encode(), b"\xfe" * len(foreign))
    assert read_message(b"{}", unreadable, "k")[1] == 5


def test_a_foreign_message_gets_the_event_id_of_its_body() -> None:
    body = b'{"EventType":"OnlineRecordStopped","EventData":{"TaskId":"t"},"Timestamp":1575545412,"SdkAppId":1}'
    message, returns, _ = read_message(body, _theirs(), "their.key")
    assert message.event_id == schemas.decode(body, received_at_us=message.received_at_us).event_id
    assert message.routing_key == "their.key"
    assert returns == 0


def test_texts_fit_a_frame_and_are_utf_8() -> None:
    message = Message(
        body=b"", event_id="e", routing_key="k", received_at_us=1, reason="\ud800" + "\U0001f600" * 100_000
    )
    rendered = render_properties(message, "m")
    assert len(rendered) < 64 * 1024
    assert read_message(b"", rendered, "")[0].reason.startswith("?\U0001f600")


def test_of_a_long_traceback_the_end_is_kept() -> None:
    message = Message(
        body=b"", event_id="e", routing_key="k", received_at_us=1, traceback="\U0001f600" * 100_000 + "KeyError: 1"
    )
    kept = read_message(b"", render_properties(message, "m"), "")[0].traceback
    assert kept.endswith("\U0001f600KeyError: 1")
    assert "\ufffd" not in kept
    assert MAX_TRACEBACK_BYTES - 4 < len(kept.encode()) <= MAX_TRACEBACK_BYTES


def test_all_texts_at_their_longest_fit_a_frame() -> None:
    long = "\U0001f600" * 100_000
    message = Message(
        body=b"",
        event_id=long,
        routing_key=long,
        received_at_us=1,
        trace=long,
        source=long,
        reason=long,
        traceback=long,
    )
    assert len(render_properties(message, "m")) < 100_000
