"""What an event_id depends on, and vectors that no version may change."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import event_id
from tests.schemas.bodies import SAMPLES, decoded, envelope, sample

#: What was recorded under these ids is found under them for ever.
OF_SAMPLES = {
    "finished-error-only.json": "58364882db35d4f1929ee6b4c1af0060",
    "finished-error.json": "ca1ca08849687e20a431732b6b3eaa43",
    "finished.json": "088023a7cefa382d99c92289442dea46",
    "long-pause-force-stopped.json": "3bd2fc89ba52af11f43494c1a744d432",
    "long-pause-warning.json": "eee2ffcc7b56cc4d156dd192f13f5261",
    "started-unsigned.json": "59f0ccf489f8d73a7a0260d71713d963",
    "started.json": "d26b5a17bcf02705fea2702975f48b6d",
    "stopped.json": "ed0ccafea2a5078901347ee981b2a845",
    "transcode-finished.json": "c26ff492dcb48c2ff789df2f252f5a18",
    "whiteboard-push-stopped.json": "3b5cfa8f7a2d576a84e2d6305e48c4b2",
}

data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), data, max_size=5)


@pytest.mark.parametrize(("name", "expected"), OF_SAMPLES.items())
def test_a_sample_has_its_id(name: str, expected: str) -> None:
    assert decoded(sample(name)).event_id == expected


def test_every_sample_has_a_vector() -> None:
    assert {path.name for path in SAMPLES.glob("*.json")} == set(OF_SAMPLES)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # printf '0\nX\n0\n{}' | sha256sum | cut -c1-32
        ((0, "X", 0, {}), "f3a1b613fb503554a25df85ee774f8a6"),
        # printf '1400000001\nOnlineRecordStarted\n1575545412\n{"RoomId":7,"TaskId":"task"}' | sha256sum | cut -c1-32
        (
            (1400000001, "OnlineRecordStarted", 1575545412, {"TaskId": "task", "RoomId": 7}),
            "7090b4a94233180ead9c76b492e7deab",
        ),
        # The same, EventData '{"A":{"a":null,"b":true},"TaskId":"<UTF-8>","z":["\n\"\\",-1,18446744073709551616]}'
        (
            (
                1400000001,
                "OnlineRecordStarted",
                1575545412,
                {
                    "z": ['\n"\\', -1, 2**64],
                    "TaskId": "\u8bfe\u5802\N{SNOWMAN}\N{MOVIE CAMERA}",
                    "A": {"b": True, "a": None},
                },
            ),
            "ed2d0f39f88d0ade1383bf010d61bd5d",
        ),
    ],
)
def test_an_id_made_by_hand_is_the_same(parts: tuple[int, str, int, dict[str, Any]], expected: str) -> None:
    assert event_id(*parts) == expected


def test_a_body_that_is_no_callback_has_the_id_of_its_bytes() -> None:
    for body in (b"", b"{}", b"\xff", b"[1]", envelope(EventType=...), envelope(Timestamp="1"), envelope(EventData=[])):
        assert decoded(body).event_id == hashlib.sha256(body).hexdigest()[:32]


def test_signing_anew_changes_nothing() -> None:
    unsigned = decoded(envelope()).event_id
    assert decoded(envelope(Sign="a" * 32, ExpireTime=1)).event_id == unsigned
    assert decoded(envelope(Sign="b" * 32, ExpireTime=2)).event_id == unsigned
    assert decoded(envelope(New="member")).event_id == unsigned


def test_order_white_space_and_spelling_change_nothing() -> None:
    one = b'{"EventType":"X","Timestamp":1,"SdkAppId":2,"EventData":{"a":"\xc3\xa9","b":[1,2]}}'
    other = (
        rb' { "EventData" : {"b": [1 ,2], "\u0061": "\u00e9" }, "SdkAppId":2, "Timestamp":1, "EventType":"\u0058" } '
    )
    assert decoded(one).event_id == decoded(other).event_id


@pytest.mark.parametrize(
    "other",
    [
        {"SdkAppId": 1400000002},
        {"SdkAppId": ...},
        {"EventType": "OnlineRecordStopped"},
        {"Timestamp": 1575545413},
        {"EventData": {"TaskId": "task", "RoomId": 1}},
        {"EventData": {"TaskId": "Task"}},
        {"EventData": {"TaskId": ["task"]}},
    ],
)
def test_each_of_the_four_parts_counts(other: dict[str, Any]) -> None:
    assert decoded(envelope(**other)).event_id != decoded(envelope()).event_id


def test_an_app_of_0_is_one_that_is_not_named() -> None:
    assert decoded(envelope(SdkAppId=0)).event_id == decoded(envelope(SdkAppId=...)).event_id


@given(app=st.integers(), kind=st.text(st.characters(exclude_categories=["Cs"])), timestamp=st.integers(), data=objects)
def test_it_is_what_the_standard_library_makes_of_the_documented_words(
    app: int, kind: str, timestamp: int, data: dict[str, Any]
) -> None:
    compact = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    words = f"{app}\n{kind}\n{timestamp}\n{compact}"
    assert event_id(app, kind, timestamp, data) == hashlib.sha256(words.encode()).hexdigest()[:32]


@given(data=objects)
def test_it_survives_a_journey_through_json(data: dict[str, Any]) -> None:
    assert decoded(envelope(EventData=data)).event_id == event_id(1400000001, "OnlineRecordStarted", 1575545412, data)
