"""What an ingest node has accepted becomes the same event again."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import EVENT_TYPES, NotStrictError, Unrecognized, decode, read_members, redecode, redecoding
from tests.schemas.bodies import RECEIVED_AT_US, SAMPLES, callback, envelope, sample

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400])
    | st.floats()
    | st.sampled_from([1.0, -0.0, 1e3, 1e18, 1e19, 1.5, 5e-324])
    | st.text(max_size=8)
    | st.sampled_from(["", "1", "-1", " 1", "1.0", "1e3", "null", "true", "AUTO", "MOON", "\0", "\\", '"', "\u8bfe"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
numbers = ["RoomId", "PauseTime", "StopTime", "EstimateStopTime", "RecordStartTime", "TotalTime", "ExceptionCnt"]
texts = ["RecordUserId", "GroupId", "FinishReason"]
videos = st.dictionaries(
    st.sampled_from(["VideoId", "VideoUrl", "VideoFormat", "VideoType", "VideoSize", "Width", "UserId", "New"]), values
)
errors = st.dictionaries(st.sampled_from(["Code", "Message", "New"]), values)
event_data = st.fixed_dictionaries(
    {},
    optional={
        "TaskId": st.text(max_size=8) | st.sampled_from(["t", "t" * 255, "t" * 256]) | values,
        **dict.fromkeys([*numbers, *texts, "New", "Timestamp", "SdkAppId"], values),
        "VideoInfos": st.lists(videos, max_size=2) | values,
        "OmittedDurations": st.lists(st.dictionaries(st.sampled_from(["VideoTime", "New"]), values)) | values,
        "Error": errors | values,
    },
)
envelopes = st.fixed_dictionaries(
    {"EventType": st.sampled_from(sorted(EVENT_TYPES)), "EventData": event_data | values},
    optional={
        "Timestamp": st.integers(0, 2 * RECEIVED_AT_US // 10**6) | values,
        "SdkAppId": st.integers(0, 2**64) | values,
        "New": values,
    },
)
layouts = st.sampled_from([{"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}, {}])


def check(body: bytes, routing_key: str) -> None:
    expected = decode(body, received_at_us=RECEIVED_AT_US).event
    found = redecode(body, routing_key=routing_key, received_at_us=RECEIVED_AT_US)
    assert (type(found), found) == (type(expected), expected)
    assert repr(found) == repr(expected)  # True is 1 and 1.0, and an enumeration's member is its value


@given(envelope=envelopes, layout=layouts)
@settings(max_examples=300, deadline=None)
@example(envelope={"EventType": "OnlineRecordFinished", "EventData": {}, "Timestamp": 1}, layout={})
@example(envelope={"EventType": "OnlineRecordFinished", "EventData": {"Timestamp": 5}, "Timestamp": 1}, layout={})
@example(envelope={"EventType": "OnlineRecordStarted", "EventData": {"TaskId": "\0"}, "Timestamp": 1}, layout={})
def test_a_strict_body_is_the_same_event_as_before(envelope: dict[str, Any], layout: dict[str, Any]) -> None:
    body = json.dumps(envelope, **layout).encode("utf-8", "surrogatepass")
    try:
        read_members(body)
    except NotStrictError:
        return  # never under one of these routing keys
    check(body, envelope["EventType"])


@given(body=st.binary(max_size=100), routing_key=st.sampled_from([*EVENT_TYPES, "unrecognized", "else"]))
def test_no_bytes_are_an_exception(body: bytes, routing_key: str) -> None:
    assert isinstance(redecode(body, routing_key=routing_key, received_at_us=RECEIVED_AT_US), Unrecognized)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_sample_is_the_same_event_as_before(path: Any) -> None:
    body = sample(path.name)
    check(body, json.loads(body)["EventType"])
    check(body, "unrecognized")


def test_a_routing_key_that_is_not_the_events_own_does_not_make_another_of_it() -> None:
    check(callback("OnlineRecordStarted"), "OnlineRecordStopped")


def test_what_lies_too_far_ahead_is_no_event_here_either() -> None:
    check(envelope(Timestamp=RECEIVED_AT_US // 10**6 + 86_400), "OnlineRecordStarted")
    check(envelope(Timestamp=RECEIVED_AT_US // 10**6 + 86_401), "OnlineRecordStarted")


def test_an_ordinary_body_is_not_decoded_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(redecoding, "decode")
    for name in ("started.json", "stopped.json", "long-pause-warning.json", "finished.json", "finished-error.json"):
        body = sample(name)
        redecode(body, routing_key=json.loads(body)["EventType"], received_at_us=RECEIVED_AT_US)
