"""Whether a Finished callback says what the vendor's answer says."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from reconcile.comparing import contradictions
from schemas import FinishReason, OnlineRecordFinished, RecordingError, VideoInfo, VideoType, decode
from vendor_api import finished_body, judge

ANSWER = OnlineRecordFinished(
    timestamp=200,
    sdk_app_id=1,
    task_id="t",
    room_id=5,
    record_user_id="tic_record_user_5_1",
    record_start_time=100,
    record_stop_time=200,
    total_time_ms=99_000,
    finish_reason=FinishReason.AUTO,
    video_infos=(
        VideoInfo(video_id="a", video_url="http://x.example/a.mp4", video_size=1, video_duration_ms=2),
        VideoInfo(video_id="b", video_url="http://x.example/b.mp4", video_size=3, video_duration_ms=4),
    ),
)


def changed(**values: Any) -> tuple[str, ...]:
    return contradictions(structs.replace(ANSWER, **values), ANSWER)


def with_video(**values: Any) -> tuple[str, ...]:
    first, second = ANSWER.video_infos
    return changed(video_infos=(first, structs.replace(second, **values)))


def test_what_says_the_same_agrees_whatever_its_time_order_and_further_members() -> None:
    assert changed() == ()
    assert changed(timestamp=999, exception_count=7, group_id="g") == ()
    assert changed(finish_reason=FinishReason.FORCE_STOP) == (), "the API knows reasons that no callback has"
    assert changed(video_infos=ANSWER.video_infos[::-1]) == ()
    assert with_video(width=1, height=2, video_type=VideoType.AUDIO) == ()


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("RoomId", {"room_id": 6}),
        ("RecordUserId", {"record_user_id": "another"}),
        ("RecordStartTime", {"record_start_time": 99}),
        ("RecordStopTime", {"record_stop_time": 201}),
        ("TotalTime", {"total_time_ms": 0}),
        ("VideoInfos", {"video_infos": ()}),
        ("VideoInfos", {"video_infos": ANSWER.video_infos[:1]}),
        ("VideoInfos", {"video_infos": (*ANSWER.video_infos, VideoInfo(video_url="http://evil.example/"))}),
        ("Error", {"error": RecordingError(code="c")}),
    ],
)
def test_a_member_that_differs_is_named(member: str, values: dict[str, Any]) -> None:
    assert changed(**values) == (member,)


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("VideoInfos[1].VideoUrl", {"video_url": "http://evil.example/b.mp4"}),
        ("VideoInfos[1].VideoSize", {"video_size": 30}),
        ("VideoInfos[1].VideoDuration", {"video_duration_ms": 40}),
        ("VideoInfos", {"video_id": "c"}),
    ],
)
def test_a_file_that_differs_is_named(member: str, values: dict[str, Any]) -> None:
    assert with_video(**values) == (member,)


def test_what_one_of_both_lacks_is_not_compared() -> None:
    assert changed(room_id=None, record_user_id=None, record_start_time=None, total_time_ms=None) == ()
    assert with_video(video_size=None, video_duration_ms=None) == ()
    without_ids = tuple(structs.replace(video, video_id=None) for video in ANSWER.video_infos)
    assert changed(video_infos=without_ids) == ()
    assert changed(video_infos=without_ids[::-1]) == (
        *("VideoInfos[0].VideoUrl", "VideoInfos[0].VideoSize", "VideoInfos[0].VideoDuration"),
        *("VideoInfos[1].VideoUrl", "VideoInfos[1].VideoSize", "VideoInfos[1].VideoDuration"),
    )


def test_of_a_failed_recording_only_that_it_failed_is_compared() -> None:
    failed = OnlineRecordFinished(timestamp=1, task_id="t", error=RecordingError(code="FailedOperation.Record"))
    assert contradictions(structs.replace(failed, room_id=9, record_start_time=0), failed) == ()
    assert contradictions(ANSWER, failed) == ("Error",)


@settings(max_examples=60)
@given(
    members=st.dictionaries(
        st.sampled_from(["RoomId", "RecordUserId", "RecordStartTime", "RecordStopTime", "TotalTime", "VideoInfos"]),
        st.one_of(st.integers(-5, 5), st.text(max_size=3), st.none(), st.lists(st.fixed_dictionaries({}), max_size=3)),
    )
)
def test_the_vendors_own_answer_agrees_with_the_callback_that_says_it(members: dict[str, Any]) -> None:
    response = {"Response": {"Status": "FINISHED", "VideoInfos": []} | members}
    answer = judge(msgspec.json.encode(response), sdk_app_id=1, task_id="t", now_s=0.0)
    record = getattr(answer, "record", None)
    if record is None or "VideoInfos" in record.odd_members:
        return
    callback = {
        "EventType": "OnlineRecordFinished",
        "SdkAppId": 1,
        "Timestamp": 7,
        "EventData": {"TaskId": "t", "VideoInfos": []} | members,
    }
    event = decode(msgspec.json.encode(callback), received_at_us=0).event
    said = decode(finished_body(1, record), received_at_us=0).event
    assert isinstance(event, OnlineRecordFinished)
    assert isinstance(said, OnlineRecordFinished)
    assert contradictions(event, said) == ()
