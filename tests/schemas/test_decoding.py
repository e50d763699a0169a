"""From bytes to an event: lenient towards the vendor, and never an exception."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import (
    EVENT_TYPES,
    Decoded,
    Event,
    FinishReason,
    OmittedDuration,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecordingError,
    Unrecognized,
    VideoInfo,
    VideoType,
    decode,
)
from tests.schemas.bodies import RECEIVED_AT_US, callback, decoded, envelope, sample

BIGGEST = 2**63 - 1


def finished(**event_data: Any) -> OnlineRecordFinished:
    event = decoded(callback("OnlineRecordFinished", **event_data)).event
    assert isinstance(event, OnlineRecordFinished), event
    return event


def reason_of(body: bytes) -> str:
    event = decoded(body).event
    assert isinstance(event, Unrecognized), event
    return event.reason


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("started.json", OnlineRecordStarted),
        ("stopped.json", OnlineRecordStopped),
        ("long-pause-warning.json", OnlineRecordLongPauseWarning),
        ("long-pause-force-stopped.json", OnlineRecordLongPauseForceStopped),
        ("finished.json", OnlineRecordFinished),
        ("finished-error.json", OnlineRecordFinished),
    ],
)
def test_a_sample_becomes_its_event_field_for_field(name: str, kind: type[Event]) -> None:
    sent = json.loads(sample(name))
    event = decoded(sample(name)).event
    data = sent["EventData"]
    assert type(event) is kind
    assert not isinstance(event, Unrecognized)
    assert (event.timestamp, event.sdk_app_id) == (sent["Timestamp"], sent["SdkAppId"])
    assert (event.task_id, event.room_id, event.record_user_id) == (
        data["TaskId"],
        data["RoomId"],
        data["RecordUserId"],
    )
    for wire, attribute in (
        ("PauseTime", "pause_time"),
        ("EstimateStopTime", "estimate_stop_time"),
        ("StopTime", "stop_time"),
        ("GroupId", "group_id"),
        ("FinishReason", "finish_reason"),
        ("RecordStartTime", "record_start_time"),
        ("RecordStopTime", "record_stop_time"),
        ("TotalTime", "total_time_ms"),
        ("ExceptionCnt", "exception_count"),
    ):
        assert data.get(wire) == getattr(event, attribute, None)
    if isinstance(event, OnlineRecordFinished):
        assert event.error == (
            RecordingError(code=data["Error"]["Code"], message=data["Error"]["Message"]) if "Error" in data else None
        )
        assert event.omitted_durations == tuple(
            OmittedDuration(video_time_ms=o["VideoTime"], pause_time_ms=o["PauseTime"], resume_time_ms=o["ResumeTime"])
            for o in data["OmittedDurations"]
        )
        assert event.video_infos == tuple(
            VideoInfo(
                video_id=v["VideoId"],
                video_url=v["VideoUrl"],
                video_format=v["VideoFormat"],
                video_type=VideoType(v["VideoType"]),
                video_size=v["VideoSize"],
                video_play_time_ms=v["VideoPlayTime"],
                video_duration_ms=v["VideoDuration"],
                user_id=v["UserId"],
                width=v.get("Width"),
                height=v.get("Height"),
            )
            for v in data["VideoInfos"]
        )


def test_an_older_finished_event_is_nothing_but_its_error() -> None:
    event = decoded(sample("finished-error-only.json")).event
    assert isinstance(event, OnlineRecordFinished)
    assert event.task_id == ""
    assert event.error is not None
    assert event.video_infos == ()


def test_a_callback_without_an_app_has_the_app_0() -> None:
    event = decoded(sample("started-unsigned.json")).event
    assert isinstance(event, OnlineRecordStarted)
    assert event.sdk_app_id == 0


@pytest.mark.parametrize("name", ["transcode-finished.json", "whiteboard-push-stopped.json"])
def test_another_family_is_kept_with_what_its_envelope_says(name: str) -> None:
    sent = json.loads(sample(name))
    assert decoded(sample(name)).event == Unrecognized(
        reason="EventType is none of the five recording events",
        event_type=sent["EventType"],
        timestamp=sent["Timestamp"],
        sdk_app_id=sent.get("SdkAppId", 0),
    )


def test_null_stands_for_an_empty_list_and_for_what_is_absent() -> None:
    event = finished(VideoInfos=None, OmittedDurations=None, Error=None, GroupId=None, TotalTime=None, RoomId=None)
    assert event == finished()
    assert (event.video_infos, event.omitted_durations, event.error) == ((), (), None)


def test_zeros_and_empty_texts_stay_what_they_are() -> None:
    event = finished(RecordStartTime=0, GroupId="", VideoInfos=[{"VideoSize": 0, "UserId": ""}])
    assert (event.record_start_time, event.group_id) == (0, "")
    assert event.video_infos == (VideoInfo(video_size=0, user_id=""),)


def test_numbers_as_text_and_a_numeric_group_are_understood() -> None:
    event = finished(RoomId="12", TotalTime="5", GroupId=880528, VideoInfos=[{"VideoSize": "7", "VideoType": "2"}])
    assert (event.room_id, event.total_time_ms, event.group_id) == (12, 5, "880528")
    assert event.video_infos == (VideoInfo(video_size=7, video_type=VideoType.WHITEBOARD),)


def test_values_that_are_unknown_today_are_kept() -> None:
    event = finished(FinishReason="MOON_PHASE", VideoInfos=[{"VideoType": 99}, {"VideoType": -1}], New={"a": 1})
    assert isinstance(event.finish_reason, FinishReason)
    assert (event.finish_reason, event.finish_reason.name) == ("MOON_PHASE", "MOON_PHASE")
    assert [video.video_type for video in event.video_infos] == [99, -1]
    assert finished(FinishReason="FORCE_STOP").finish_reason is FinishReason.FORCE_STOP


def test_the_envelope_wins_over_members_of_its_names_in_event_data() -> None:
    event = finished(Timestamp=5, SdkAppId=6)
    assert (event.timestamp, event.sdk_app_id) == (1575545412, 1400000001)


@pytest.mark.parametrize("number", [BIGGEST, -(2**63)])
def test_numbers_of_64_bits_are_taken(number: int) -> None:
    event = finished(RoomId=number, VideoInfos=[{"VideoSize": number, "VideoType": number}])
    assert event.room_id == number
    assert (event.video_infos[0].video_size, event.video_infos[0].video_type) == (number, number)
    assert decode(envelope(Timestamp=BIGGEST), received_at_us=2**64 * 1_000_000).event == OnlineRecordStarted(
        timestamp=BIGGEST, sdk_app_id=1400000001, task_id="task"
    )


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
@pytest.mark.parametrize(
    "place", ["RoomId", "TotalTime", "VideoSize", "VideoType", "PauseTime", "SdkAppId", "Timestamp"]
)
def test_larger_numbers_fit_no_column_and_are_not_recognized(number: int, place: str) -> None:
    if place in ("SdkAppId", "Timestamp"):
        body = envelope(**{place: number})
    elif place.startswith("Video"):
        body = callback("OnlineRecordFinished", VideoInfos=[{place: number}])
    elif place == "PauseTime":
        body = callback("OnlineRecordLongPauseWarning", PauseTime=number)
    else:
        body = callback("OnlineRecordFinished", **{place: number})
    event = decoded(body).event
    assert isinstance(event, Unrecognized)
    assert event.timestamp == (None if place == "Timestamp" else 1575545412)
    assert event.sdk_app_id == (0 if place == "SdkAppId" else 1400000001)


@pytest.mark.parametrize(
    "data",
    [{"RecordUserId": "a\0b"}, {"VideoInfos": [{"VideoUrl": "\0"}]}, {"New": ["\0"]}, {"\0": 1}, {"TaskId": "\0"}],
)
def test_the_character_that_sql_text_cannot_hold_is_not_recognized(data: dict[str, Any]) -> None:
    assert reason_of(callback("OnlineRecordFinished", **data)) == (
        "EventData holds the character U+0000, which SQL text cannot"
    )


def test_a_task_id_has_at_most_255_characters() -> None:
    assert finished(TaskId="\u8bfe" * 255).task_id == "\u8bfe" * 255
    assert "TaskId" in reason_of(callback("OnlineRecordFinished", TaskId="t" * 256))


def test_a_timestamp_more_than_a_day_ahead_is_not_recognized() -> None:
    latest = RECEIVED_AT_US // 1_000_000 + 86_400
    assert isinstance(decoded(envelope(Timestamp=latest)).event, OnlineRecordStarted)
    assert reason_of(envelope(Timestamp=latest + 1)) == "Timestamp lies more than a day ahead of the arrival"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a":1,"a":1}', "a name stands twice in one object"),
        (envelope(EventType=...), "EventType is missing"),
        (envelope(Timestamp=...), "Timestamp is missing"),
        (envelope(EventData=...), "EventData is missing"),
        (envelope(EventType=None), "EventType: Expected `str`, got `null`"),
        (envelope(Timestamp="1575545412"), "Timestamp: Expected `int`, got `str`"),
        (envelope(Timestamp=1.5), "Timestamp: Expected `int`, got `float`"),
        (envelope(Timestamp=True), "Timestamp: Expected `int`, got `bool`"),
        (envelope(SdkAppId="1400000001"), "SdkAppId: Expected `int`, got `str`"),
        (envelope(SdkAppId=None), "SdkAppId: Expected `int`, got `null`"),
        (envelope(EventData=[]), "EventData is not an object"),
        (envelope(EventData="{}"), "EventData is not an object"),
        (envelope(EventData={}), "EventData: Object missing required field `TaskId`"),
        (envelope(EventData={"TaskId": None}), "EventData: Object missing required field `TaskId`"),
        (envelope(EventData={"TaskId": 5}), "EventData: Expected `str`, got `int` - at `$.TaskId`"),
        (callback(RoomId="room"), "EventData: Expected `int | null`, got `str` - at `$.RoomId`"),
        (callback(RoomId=[]), "EventData: Expected `int | null`, got `array` - at `$.RoomId`"),
        (callback(VideoInfos={}), "EventData: Expected `array`, got `object` - at `$.VideoInfos`"),
        (callback(VideoInfos=[5]), "EventData: Expected `object`, got `int` - at `$.VideoInfos[0]`"),
        (callback(Error="x"), "EventData: Expected `object | null`, got `str` - at `$.Error`"),
    ],
)
def test_what_does_not_fit_is_kept_with_a_reason(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


def test_an_event_type_is_shown_without_control_characters_and_not_whole() -> None:
    event = decoded(envelope(EventType="\x1b[31mred\n\u202e\u2028" + "x" * 500)).event
    assert isinstance(event, Unrecognized)
    assert event.event_type == "\ufffd[31mred\ufffd\ufffd\ufffd" + "x" * 117
    assert len(event.event_type) == 128


@pytest.mark.parametrize("event_type", ["", "onlineRecordStarted", "OnlineRecordStarted ", "OnlineRecord"])
def test_only_the_exact_name_is_an_event(event_type: str) -> None:
    assert reason_of(envelope(EventType=event_type)) == "EventType is none of the five recording events"


def check_presentable(result: Decoded, body: bytes) -> None:
    """Hold what every result promises, whatever came in."""
    assert len(result.event_id) == 32
    assert set(result.event_id) <= set("0123456789abcdef")
    assert decode(body, received_at_us=RECEIVED_AT_US) == result
    event = result.event
    assert -(2**63) <= event.sdk_app_id <= BIGGEST
    if isinstance(event, Unrecognized):
        assert 0 < len(event.reason) < 500
        assert event.timestamp is None or -(2**63) <= event.timestamp <= BIGGEST
        if event.event_type is not None:
            assert len(event.event_type) <= 128
            assert event.event_type.isprintable()
    else:
        assert len(event.task_id) <= 255
        assert "\0" not in event.task_id


@given(body=st.binary(max_size=200))
def test_no_bytes_are_an_exception(body: bytes) -> None:
    check_presentable(decoded(body), body)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
names = [*("TaskId", "RoomId", "RecordUserId", "VideoInfos", "OmittedDurations", "Error", "FinishReason"), "TotalTime"]
numbers_near_the_limits = st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400])
event_data = st.dictionaries(
    st.sampled_from(names),
    anything | numbers_near_the_limits | st.lists(st.dictionaries(st.just("VideoType"), anything)),
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "EventType": st.sampled_from(list(EVENT_TYPES)) | anything,
        "Timestamp": st.integers() | anything,
        "SdkAppId": st.integers() | anything,
        "EventData": event_data | anything,
    },
)


@given(callback=envelopes)
@example(callback={"EventType": "OnlineRecordFinished", "Timestamp": 1, "EventData": {"RoomId": 10**400}})
@example(callback={"EventType": "\ud800", "Timestamp": 1, "EventData": {}})
def test_no_callback_is_an_exception(callback: dict[str, Any]) -> None:
    body = json.dumps(callback).encode()
    check_presentable(decoded(body), body)


@pytest.mark.parametrize(
    "event_data",
    [b'{"TaskId": "\xff"}', b'{"TaskId": "a", "TaskId": "b"}', b"[" * 100 + b"]" * 100],
    ids=["not UTF-8", "a name twice", "nested too deep"],
)
def test_a_body_that_is_not_strict_still_shows_whose_it_is(event_data: bytes) -> None:
    body = b'{"EventType": "OnlineRecordStarted", "Timestamp": 7, "SdkAppId": 1400000001, "EventData": %b}' % event_data

    event = decoded(body).event

    assert isinstance(event, Unrecognized)
    assert (event.sdk_app_id, event.event_type, event.timestamp) == (1400000001, "OnlineRecordStarted", 7)


def test_one_that_cannot_be_read_at_all_shows_nothing() -> None:
    assert decoded(b'{"EventType": "\\ud800", "SdkAppId": 1}').event == Unrecognized(reason="malformed JSON")
