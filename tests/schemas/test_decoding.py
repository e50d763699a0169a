"""From bytes to an event: lenient towards the vendor, and never an exception."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
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
    event_id,
    redecode,
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


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30, 10**400])
@pytest.mark.parametrize("place", ["SdkAppId", "Timestamp"])
def test_a_recording_has_no_larger_app_and_time(number: int, place: str) -> None:
    event = decoded(envelope(**{place: number})).event
    assert isinstance(event, Unrecognized)
    assert event.timestamp == (None if place == "Timestamp" else 1575545412)
    assert event.sdk_app_id == (0 if place == "SdkAppId" else 1400000001)


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1e18", "1" + 400 * "0", "-1e999"])
@pytest.mark.parametrize("place", ["RoomId", "VideoSize", "VideoType", "New"])
def test_a_number_that_fits_no_column_costs_its_place_and_no_other_number(number: str, place: str) -> None:
    body = callback(
        "OnlineRecordFinished", VideoInfos=[{"VideoId": "a", place: "HERE"}], **{place: "HERE"}, TotalTime=BIGGEST
    )
    result = decoded(body.replace(b'"HERE"', number.encode()))
    event = result.event
    assert isinstance(event, OnlineRecordFinished)
    assert event.total_time_ms == BIGGEST
    assert [video.video_id for video in event.video_infos] == ["a"]
    if number != "1e18":
        assert (event.room_id, event.video_infos[0].video_size, event.video_infos[0].video_type) == (None, None, None)
        assert set(result.odd_members) == {"RoomId": {"RoomId"}, "New": set()}.get(place, {f"VideoInfos[0].{place}"})


@pytest.mark.parametrize(
    ("data", "odd"),
    [
        ({"RecordUserId": "a\0b"}, ("RecordUserId",)),
        ({"VideoInfos": [{"VideoUrl": "\0", "VideoSize": 1}]}, ("VideoInfos[0].VideoUrl",)),
        ({"FinishReason": "\0"}, ("FinishReason",)),
        ({"New": ["\0"], "\0": 1}, ()),
    ],
)
def test_a_text_that_sql_cannot_hold_costs_its_place(data: dict[str, Any], odd: tuple[str, ...]) -> None:
    result = decoded(callback("OnlineRecordFinished", TotalTime=5, **data))
    assert isinstance(result.event, OnlineRecordFinished)
    assert result.event.total_time_ms == 5
    assert "\0" not in repr(msgspec.to_builtins(result.event))
    assert result.odd_members == odd


def test_a_task_id_that_sql_cannot_hold_is_not_recognized() -> None:
    assert reason_of(callback(TaskId="\0")) == "TaskId holds the character U+0000, which SQL text cannot"


# What stands in one place -> what the event has there, and what is named.
ODD: list[tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ({"RoomId": "room"}, {"room_id": None}, ("RoomId",)),
    ({"RoomId": [], "TotalTime": 1.5, "ExceptionCnt": True}, {}, ("RoomId", "TotalTime", "ExceptionCnt")),
    ({"RecordStopTime": "soon"}, {"record_stop_time": None}, ("RecordStopTime",)),
    ({"RecordStopTime": "1568949392"}, {"record_stop_time": 1568949392}, ()),
    ({"RecordUserId": 5, "GroupId": {}}, {"record_user_id": None, "group_id": None}, ("RecordUserId", "GroupId")),
    ({"FinishReason": 3}, {"finish_reason": None}, ("FinishReason",)),
    ({"VideoInfos": {}}, {"video_infos": ()}, ("VideoInfos",)),
    ({"OmittedDurations": "none"}, {"omitted_durations": ()}, ("OmittedDurations",)),
    (
        {"VideoInfos": [{"VideoId": "a"}, 5, None, "x", {"VideoId": "b", "VideoSize": "12", "VideoPlayTime": None}]},
        {
            "video_infos": (
                *(VideoInfo(video_id="a"), VideoInfo(), VideoInfo(), VideoInfo()),
                VideoInfo(video_id="b", video_size=12),
            )
        },
        ("VideoInfos[1]", "VideoInfos[2]", "VideoInfos[3]"),
    ),
    (
        {"VideoInfos": [{"VideoUrl": "u", "VideoType": "camera", "VideoSize": "big"}, {"VideoId": "b"}]},
        {"video_infos": (VideoInfo(video_url="u"), VideoInfo(video_id="b"))},
        ("VideoInfos[0].VideoType", "VideoInfos[0].VideoSize"),
    ),
    (
        {"OmittedDurations": [{"VideoTime": 1, "PauseTime": {}}, []]},
        {"omitted_durations": (OmittedDuration(video_time_ms=1), OmittedDuration())},
        ("OmittedDurations[0].PauseTime", "OmittedDurations[1]"),
    ),
    ({"Error": "failed"}, {"error": RecordingError()}, ("Error",)),
    ({"Error": {"Code": 5, "Message": "m"}}, {"error": RecordingError(message="m")}, ("Error.Code",)),
]


@pytest.mark.parametrize(("odd", "members", "named"), ODD, ids=[str(odd)[:50] for odd, _, _ in ODD])
def test_an_odd_member_costs_its_place_and_no_more(
    odd: dict[str, Any], members: dict[str, Any], named: tuple[str, ...]
) -> None:
    usual = {"RoomId": 7, "VideoInfos": [{"VideoId": "a"}], "GroupId": "g", "RecordStartTime": 3}
    result = decoded(callback("OnlineRecordFinished", **usual | odd))
    assert isinstance(result.event, OnlineRecordFinished)
    expected = finished(**{name: value for name, value in usual.items() if name not in odd})
    assert result.event == msgspec.structs.replace(expected, **members)
    assert result.odd_members == named


def test_an_odd_member_of_any_event_costs_its_place() -> None:
    result = decoded(callback("OnlineRecordLongPauseWarning", PauseTime="long", EstimateStopTime=8))
    assert result.event == OnlineRecordLongPauseWarning(
        timestamp=1575545412, sdk_app_id=1400000001, task_id="task", estimate_stop_time=8
    )
    assert result.odd_members == ("PauseTime",)


def test_a_task_id_has_at_most_255_characters() -> None:
    assert finished(TaskId="\u8bfe" * 255).task_id == "\u8bfe" * 255
    assert "TaskId" in reason_of(callback("OnlineRecordFinished", TaskId="t" * 256))


def test_a_timestamp_more_than_a_day_ahead_is_not_recognized() -> None:
    latest = RECEIVED_AT_US // 1_000_000 + 86_400
    assert isinstance(decoded(envelope(Timestamp=latest)).event, OnlineRecordStarted)
    assert reason_of(envelope(Timestamp=latest + 1)) == "Timestamp lies more than a day ahead of the arrival"


def test_a_clock_that_is_years_behind_is_no_measure_of_timestamps() -> None:
    body = callback("OnlineRecordFinished", RoomId=7)
    for year_s in (0, 100 * 86_400, 34 * 365 * 86_400):
        event = decode(body, received_at_us=year_s * 1_000_000).event
        assert isinstance(event, OnlineRecordFinished)
        assert redecode(body, routing_key="OnlineRecordFinished", received_at_us=year_s * 1_000_000) == event


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


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
    | st.sampled_from(["\0", "12", "-1", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["VideoId", "New"]), inner, max_size=2),
    max_leaves=6,
)


def places(value: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """Return where anything stands in a value: names and indices; not the TaskId."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        if step != "TaskId":
            yield (*above, step)
            yield from places(item, *above, step)


def without(event: Any, at: Sequence[str | int]) -> Any:
    """Return the members of an event with one taken out."""
    if len(at) > 1:
        return (
            event | {at[0]: without(event[at[0]], at[1:])}
            if isinstance(event, dict)
            else [*event[: int(at[0])], without(event[int(at[0])], at[1:]), *event[int(at[0]) + 1 :]]
        )
    if isinstance(event, dict):
        return {name: item for name, item in event.items() if name != at[0]}
    return [item for number, item in enumerate(event) if number != at[0]]


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


@given(member=st.data(), value=json_values)
@settings(deadline=None)
def test_whatever_stands_in_one_place_all_others_are_as_sent(member: st.DataObject, value: Any) -> None:
    sent = json.loads(sample("finished.json"))
    usual = decoded(json.dumps(sent).encode()).event
    at = member.draw(st.sampled_from(list(places(sent["EventData"]))))
    replaced = json.loads(json.dumps(sent))
    inside = replaced["EventData"]
    for step in at[:-1]:
        inside = inside[step]
    inside[at[-1]] = value
    body = json.dumps(replaced).encode()
    result = decoded(body)
    assert isinstance(result.event, OnlineRecordFinished)
    assert result.event_id == event_id(sent["SdkAppId"], sent["EventType"], sent["Timestamp"], replaced["EventData"])
    assert redecode(body, routing_key="OnlineRecordFinished", received_at_us=RECEIVED_AT_US) == result.event
    assert without(msgspec.to_builtins(result.event), at) == without(msgspec.to_builtins(usual), at)


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
