"""What is sent is authentic, and no callback is another's repetition."""

import json
from pathlib import Path

import pytest

from bench.load.payloads import APP, DISTINCT_SIGNS, KEY, Payload, messages, signed_callbacks, signed_classes
from bench.load.wrk import write_bodies
from ingest import sign
from schemas import OnlineRecordFinished, OnlineRecordStarted, decode


def halves() -> list[list[Payload]]:
    payloads = list(signed_classes(2))
    return [payloads[:3], payloads[3:]]


def test_callbacks_are_signed_as_the_vendor_signs() -> None:
    for payload in signed_callbacks(5):
        content = json.loads(payload.body)
        assert content["Sign"] == sign(KEY, content["ExpireTime"])
        assert content["SdkAppId"] == APP


def test_the_peers_take_the_same_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.peers.python import accepting  # noqa: PLC0415 - its libraries are the standard one's

    monkeypatch.setattr(accepting, "KEY", KEY)
    body = next(signed_callbacks(1)).body
    assert accepting.authentic(body) == json.loads(body)
    monkeypatch.setattr(accepting, "KEY", "another")
    assert accepting.authentic(body) is None


def test_the_peers_refuse_what_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.peers.python import accepting  # noqa: PLC0415 - its libraries are the standard one's

    monkeypatch.setattr(accepting, "KEY", KEY)
    expired = {"EventType": "OnlineRecordStarted", "ExpireTime": 1588040109, "Sign": sign(KEY, 1588040109)}
    assert accepting.authentic(json.dumps(expired).encode()) is None


def test_every_callback_is_an_event_of_its_own_under_the_id_that_it_is_kept_by() -> None:
    payloads = list(signed_callbacks(DISTINCT_SIGNS + 100))
    decoded = [decode(payload.body, received_at_us=1_700_000_000_000_000) for payload in payloads]
    assert [one.event_id for one in decoded] == [payload.event_id for payload in payloads]
    assert len({payload.event_id for payload in payloads}) == len(payloads)
    assert {type(one.event) for one in decoded} == {OnlineRecordStarted}


def test_a_class_sends_what_becomes_of_one_recording() -> None:
    decoded = [decode(payload.body, received_at_us=1_700_000_000_000_000) for payload in signed_classes(2)]
    assert [type(one.event).__name__ for one in decoded] == [
        *("OnlineRecordStarted", "OnlineRecordStopped", "OnlineRecordFinished"),
        *("OnlineRecordStarted", "OnlineRecordStopped", "OnlineRecordFinished"),
    ]
    assert [len({json.loads(one.body)["EventData"]["TaskId"] for one in part}) for part in halves()] == [1, 1]


def test_two_runs_send_different_events() -> None:
    assert next(signed_callbacks(1)).event_id != next(signed_callbacks(1)).event_id


def test_signs_change_as_they_would_over_time() -> None:
    signs = {json.loads(payload.body)["Sign"] for payload in signed_callbacks(DISTINCT_SIGNS)}
    assert len(signs) >= DISTINCT_SIGNS - 1


def test_bodies_are_as_long_as_the_vendors() -> None:
    assert 240 <= len(next(signed_callbacks(1)).body) <= 300


@pytest.mark.parametrize("size", [4096, 65_536, 524_288])
def test_a_body_is_lengthened_by_more_videos(size: int) -> None:
    payload = next(signed_callbacks(1, sample="finished", at_least_bytes=size))
    assert size <= len(payload.body) <= size * 1.5
    assert isinstance(decode(payload.body, received_at_us=1_700_000_000_000_000).event, OnlineRecordFinished)


def test_messages_are_what_ingest_publishes() -> None:
    message = next(messages(1, sample="finished"))
    assert message.routing_key == "OnlineRecordFinished"
    assert message.event_id == decode(message.body, received_at_us=message.received_at_us).event_id
    assert not {"Sign", "ExpireTime"} & set(json.loads(message.body))


def test_bodies_for_wrk_stand_one_to_a_line(tmp_path: Path) -> None:
    payloads = list(signed_callbacks(3))
    write_bodies(tmp_path / "bodies", payloads)
    assert (tmp_path / "bodies").read_bytes().split(b"\n") == [*(payload.body for payload in payloads), b""]
