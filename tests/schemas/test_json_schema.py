"""The schema says what is recognized."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas import EVENT_TYPES, Unrecognized
from schemas.json_schema import callback_schema, event_definitions
from tests.schemas.bodies import callback, decoded, envelope, sample

VALIDATOR = Draft202012Validator(json.loads(json.dumps(callback_schema())))

RECOGNIZED = [
    *("started.json", "started-unsigned.json", "stopped.json", "long-pause-warning.json"),
    *("long-pause-force-stopped.json", "finished.json", "finished-error.json", "finished-error-only.json"),
]


def test_it_is_a_schema_itself() -> None:
    Draft202012Validator.check_schema(callback_schema())


@pytest.mark.parametrize("name", RECOGNIZED)
def test_every_recognized_sample_is_valid(name: str) -> None:
    assert not isinstance(decoded(sample(name)).event, Unrecognized)
    VALIDATOR.validate(json.loads(sample(name)))


@pytest.mark.parametrize(
    "body",
    [
        callback(FinishReason="MOON_PHASE", VideoInfos=[{"VideoType": 99, "New": 1}], New={}),
        envelope(SdkAppId=...),
        envelope(Sign="a" * 32, ExpireTime=1, New=1),
        callback(RoomId=2**63 - 1),
    ],
)
def test_unknown_members_and_values_are_valid(body: bytes) -> None:
    assert not isinstance(decoded(body).event, Unrecognized)
    VALIDATOR.validate(json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        sample("transcode-finished.json"),
        sample("whiteboard-push-stopped.json"),
        b"{}",
        b"[]",
        envelope(EventType=...),
        envelope(EventType="OnlineRecordStartet"),
        envelope(Timestamp=...),
        envelope(Timestamp="1575545412"),
        envelope(Timestamp=2**63),
        envelope(EventData=...),
        envelope(EventData=[]),
        envelope(EventData={}),
        envelope(EventData={"TaskId": 5}),
        envelope(EventData={"TaskId": "t" * 256}),
    ],
)
def test_what_is_not_recognized_is_not_valid(body: bytes) -> None:
    assert isinstance(decoded(body).event, Unrecognized)
    assert not VALIDATOR.is_valid(json.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        callback(RoomId=2**63),
        callback(RoomId=True),
        callback(VideoInfos={}),
        callback(VideoInfos=[{"VideoType": 2**63}]),
        callback(Error="failed"),
    ],
)
def test_what_is_recognized_in_part_is_not_valid(body: bytes) -> None:
    assert decoded(body).odd_members
    assert not VALIDATOR.is_valid(json.loads(body))


def test_every_part_is_referred_to_where_it_is_put() -> None:
    parts = event_definitions("#/somewhere/{name}")
    assert set(EVENT_TYPES) < set(parts)
    references: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            references.update(item for name, item in value.items() if name == "$ref")
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(parts)
    assert references == {f"#/somewhere/{name}" for name in set(parts) - set(EVENT_TYPES)}
