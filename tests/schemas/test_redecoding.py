"""What an ingest node has accepted becomes the same event again."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import EVENT_TYPES, NotStrictError, Unrecognized, decode, read_members, redecode
from schemas import decoding as redecoding
from tests.profiles import examples
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
number = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9) | st.integers(0, 9).map(str)
text = st.text(max_size=8) | st.sampled_from(["", "7", "AUTO", "MOON", "\\", '"', "\u8bfe", "\0"])


def members(likely: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of these members, of which one or two are rather anything at all."""
    names = st.sampled_from([*likely, "New"])
    return st.builds(
        lambda usual, odd: usual | odd,
        st.fixed_dictionaries({}, optional=likely),
        st.just({}) | st.dictionaries(names, values, max_size=2),
    )


video = members(
    {
        **dict.fromkeys(["VideoId", "VideoUrl", "VideoFormat", "UserId"], text),
        **dict.fromkeys(["VideoType", "VideoSize", "VideoPlayTime", "VideoDuration", "Width", "Height"], number),
    }
)
event_data = st.builds(
    lambda task_id, others: task_id | others,
    st.fixed_dictionaries({"TaskId": st.text(min_size=1, max_size=8) | st.sampled_from(["t" * 255, "t" * 256])}),
    members(
        {
            **dict.fromkeys(numbers, number),
            **dict.fromkeys(texts, text),
            "VideoInfos": st.lists(video, max_size=2),
            "OmittedDurations": st.lists(members(dict.fromkeys(["VideoTime", "PauseTime", "ResumeTime"], number))),
            "Error": members({"Code": text, "Message": text}),
            **dict.fromkeys(["Timestamp", "SdkAppId"], number | text),
        }
    ),
)
envelopes = st.builds(
    lambda usual, odd: usual | odd,
    st.fixed_dictionaries(
        {
            "EventType": st.sampled_from(sorted(EVENT_TYPES)),
            "EventData": event_data,
            "Timestamp": st.integers(0, 2 * RECEIVED_AT_US // 10**6),
        },
        optional={"SdkAppId": st.integers(0, 2**63 - 1), "New": values},
    ),
    st.just({}) | st.dictionaries(st.sampled_from(["EventData", "Timestamp", "SdkAppId", "New"]), values, max_size=1),
)
layouts = st.sampled_from([{"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}, {}])


def check(body: bytes, routing_key: str) -> None:
    expected = decode(body, received_at_us=RECEIVED_AT_US).event
    found = redecode(body, routing_key=routing_key, received_at_us=RECEIVED_AT_US)
    assert (type(found), found) == (type(expected), expected)
    assert repr(found) == repr(expected)  # True is 1 and 1.0, and an enumeration's member is its value


@given(envelope=envelopes, layout=layouts)
@examples(quick=50, thorough=3000)
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


@pytest.mark.parametrize("event_data", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000])
def test_a_foreign_message_that_nests_too_deep_is_no_event(event_data: bytes) -> None:
    for place in (b'"EventData":%b', b'"EventData":{"TaskId":"t","a":%b}', b'"EventData":{"TaskId":"t"},"a":%b'):
        check(b'{"EventType":"OnlineRecordStarted","Timestamp":1,%b}' % (place % event_data), "OnlineRecordStarted")


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
