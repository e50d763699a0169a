"""What the vendor's answers are taken for, whatever they hold."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import FinishReason, OnlineRecordFinished, OnlineRecordStarted, OnlineRecordStopped, decode, event_id
from tests.schemas.bodies import RECEIVED_AT_US, decoded, sample
from tests.vendor_api.api_answers import APP, NOW_S, TASK, answer, error, finished, finished_members
from vendor_api import (
    Again,
    Answer,
    AppPaused,
    ClockOff,
    Failed,
    Finished,
    NotFound,
    Running,
    Stopped,
    failed_body,
    finished_body,
    judge,
    started_body,
    stopped_body,
)


def judged(content: bytes) -> Answer:
    return judge(content, sdk_app_id=APP, task_id=TASK, now_s=NOW_S)


def again(content: bytes) -> str:
    """Return why nothing was learned."""
    found = judged(content)
    assert isinstance(found, Again)
    return found.reason


@pytest.mark.parametrize("status", ["PREPARED", "RECORDING", "PAUSED"])
def test_a_recording_that_goes_on_is_running(status: str) -> None:
    found = judged(answer(Status=status, TaskId=TASK, RoomId=880528, RecordUserId="tic_record_user_880528_1"))
    assert isinstance(found, Running)
    assert (found.status, found.record.room_id, found.record.video_infos) == (status, 880528, ())


def test_a_recording_whose_files_are_processed_is_stopped() -> None:
    found = judged(answer(Status="STOPPED", TaskId=TASK, RecordStopTime=1568949392, VideoInfos=None))
    assert isinstance(found, Stopped)
    assert found.record.record_stop_time == 1568949392


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("FailedOperation.Record", Failed),
        ("InvalidParameter.TaskNotFound", NotFound),
        ("AuthFailure", AppPaused),
        ("AuthFailure.SecretIdNotFound", AppPaused),
        ("AuthFailure.SignatureFailure", AppPaused),
        ("AuthFailure.UnheardOf", AppPaused),
        ("AuthFailure.SignatureExpire", ClockOff),
        ("UnauthorizedOperation", AppPaused),
        ("UnauthorizedOperation.SdkAppId", AppPaused),
        ("InvalidParameter.SdkAppIdNotFound", AppPaused),
        ("ResourceUnavailable.NotRegistered", AppPaused),
        ("ResourceUnavailable.ServiceExpired", AppPaused),
        ("ResourceUnavailable.UnheardOf", AppPaused),
        ("RequestLimitExceeded", Again),
        ("RequestLimitExceeded.UinLimitExceeded", Again),
        ("InternalError", Again),
        ("InternalError.Db", Again),
        ("FailedOperation", Again),
        ("InvalidParameter", Again),
        ("UnheardOf", Again),
        ("", Again),
    ],
)
def test_an_error_means_what_the_table_says(code: str, kind: type) -> None:
    assert type(judged(error(code))) is kind


def test_an_error_that_a_person_must_act_on_says_how() -> None:
    found = judged(error("ResourceUnavailable.ServiceExpired", "arrears"))
    assert isinstance(found, AppPaused)
    assert "renew or pay" in found.reason
    assert "ResourceUnavailable.ServiceExpired" in found.reason
    assert "续费" in found.explanation.zh
    assert found.detail == "arrears"


def test_over_the_limit_of_requests_the_next_waits_for_another_second() -> None:
    found = judged(error("RequestLimitExceeded"))
    assert isinstance(found, Again)
    assert found.after_s > 1


def test_a_failed_recording_keeps_the_vendors_error() -> None:
    message = "code: 40004, msg: 2019-09-23 10:31:47, im login failed with code 6206, desc serSig expired\n"
    assert judged(error("FailedOperation.Record", message)) == Failed(code="FailedOperation.Record", message=message)


def test_a_finished_recording_makes_the_event_that_its_callback_made() -> None:
    found = judged(finished())
    assert isinstance(found, Finished)
    ours, theirs = decoded(finished_body(APP, found.record)), decoded(sample("finished.json"))
    assert isinstance(theirs.event, OnlineRecordFinished)
    assert ours.event == msgspec.structs.replace(theirs.event, timestamp=1568949392)
    assert ours.odd_members == ()


def test_a_finished_body_is_what_a_callback_would_be_but_unsigned() -> None:
    found = judged(finished())
    assert isinstance(found, Finished)
    ours, theirs = json.loads(finished_body(APP, found.record)), json.loads(sample("finished.json"))
    del theirs["Sign"], theirs["ExpireTime"]
    assert ours == {**theirs, "Timestamp": theirs["EventData"]["RecordStopTime"]}


def test_the_same_answer_makes_the_same_bytes_in_whatever_order_its_members_come() -> None:
    one, other = judged(finished()), judged(answer(**dict(reversed(finished_members().items()))))
    assert isinstance(one, Finished)
    assert isinstance(other, Finished)
    assert finished_body(APP, one.record) == finished_body(APP, other.record)


def test_numbers_that_come_as_texts_make_the_same_bytes() -> None:
    one, other = judged(finished()), judged(finished(RoomId="880528", RecordStopTime="1568949392", GroupId=880528))
    assert isinstance(one, Finished)
    assert isinstance(other, Finished)
    assert finished_body(APP, one.record) == finished_body(APP, other.record)


def test_lists_and_members_that_are_missing_or_null_are_empty_and_absent() -> None:
    found = judged(finished(VideoInfos=None, OmittedDurations=..., TotalTime=None, GroupId=...))
    assert isinstance(found, Finished)
    event = decoded(finished_body(APP, found.record)).event
    assert isinstance(event, OnlineRecordFinished)
    assert (event.video_infos, event.omitted_durations, event.total_time_ms, event.group_id) == ((), (), None, None)


def test_values_that_are_unknown_today_are_kept() -> None:
    found = judged(finished(FinishReason="BY_MAGIC", VideoInfos=[{"VideoType": 77, "VideoFormat": "av2"}]))
    assert isinstance(found, Finished)
    assert json.loads(finished_body(APP, found.record))["EventData"]["FinishReason"] == "BY_MAGIC"
    event = decoded(finished_body(APP, found.record)).event
    assert isinstance(event, OnlineRecordFinished)
    assert event.finish_reason == FinishReason("BY_MAGIC")
    assert [(video.video_type, video.video_format) for video in event.video_infos] == [(77, "av2")]


def test_a_member_that_is_not_what_is_documented_is_left_out_and_named() -> None:
    found = judged(finished(RoomId=2**70, VideoInfos=[{"VideoUrl": 7, "VideoSize": 5}, "no object"]))
    assert isinstance(found, Finished)
    assert found.record.room_id is None
    assert [video.video_size for video in found.record.video_infos] == [5, None]
    assert set(found.record.odd_members) == {"RoomId", "VideoInfos[0].VideoUrl", "VideoInfos[1]"}


@pytest.mark.parametrize("status", [None, ...])
def test_an_answer_without_a_status_is_a_fault_and_no_result(status: Any) -> None:
    assert "no Status" in again(finished(Status=status))


def test_a_status_that_is_unknown_today_is_no_result() -> None:
    assert "UPLOADING" in again(finished(Status="UPLOADING"))
    assert "7" in again(finished(Status=7))


def test_an_answer_about_another_recording_is_no_result() -> None:
    assert "another TaskId" in again(finished(TaskId="other"))


def test_a_result_whose_videos_cannot_be_read_is_not_taken_for_one_without_videos() -> None:
    assert "VideoInfos" in again(finished(VideoInfos="mp4"))
    assert "VideoInfos" in again(finished(VideoInfos={"0": {}}))


def test_a_result_from_the_future_is_no_result() -> None:
    assert "future" in again(finished(RecordStopTime=int(NOW_S) + 100_000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"{}",
        b'{"Response": null}',
        b'{"Response": []}',
        b'{"Response": {"Error": 1}}',
        b'{"Response": {"Error": {"Code": 1, "Message": "m"}}}',
        b'{"Response": {"Error": {"Code": "FailedOperation.Record", "Message": 5}}}',
        b'{"Response": {"Status": "FINISHED"',
        b'\xff{"Response": {}}',
        b'{"Response": {"Status": "\\ud800"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_of_the_api_is_asked_again(content: bytes) -> None:
    assert again(content)


def test_an_answer_that_is_too_large_is_refused() -> None:
    assert "larger" in again(finished(ReplayUrl="x" * 4 * 1024 * 1024))


def test_an_answer_of_very_many_small_parts_is_refused_before_it_is_read() -> None:
    assert "objects" in again(finished(VideoInfos=[{}] * 100_000))


def test_a_recording_of_a_thousand_files_is_read() -> None:
    videos = json.loads(sample("finished.json"))["EventData"]["VideoInfos"] * 250
    found = judged(finished(VideoInfos=videos))
    assert isinstance(found, Finished)
    assert len(found.record.video_infos) == 1000


def test_long_and_odd_texts_of_errors_are_cut_and_fit_everywhere() -> None:
    found = judged(error("FailedOperation.Record", "x\0\ud800" + "y" * 100_000))
    assert isinstance(found, Failed | Again)
    found = judged(error("FailedOperation.Record", "x\0" + "y" * 100_000))
    assert isinstance(found, Failed)
    assert found.message.startswith("x\N{REPLACEMENT CHARACTER}y")
    assert len(found.message) <= 2_000
    event = decoded(failed_body(APP, TASK, found, timestamp=1)).event
    assert isinstance(event, OnlineRecordFinished)
    assert event.error is not None
    assert event.error.message == found.message


def test_a_failed_body_is_the_event_of_a_failed_recording() -> None:
    theirs = json.loads(sample("finished-error.json"))["EventData"]
    failed = Failed(code=theirs["Error"]["Code"], message=theirs["Error"]["Message"])
    body = failed_body(APP, TASK, failed, timestamp=5, room_id=theirs["RoomId"], record_user_id=theirs["RecordUserId"])
    event, vendors = decoded(body).event, decoded(sample("finished-error.json")).event
    assert isinstance(event, OnlineRecordFinished)
    assert isinstance(vendors, OnlineRecordFinished)
    for name in ("sdk_app_id", "task_id", "room_id", "record_user_id", "error", "video_infos", "omitted_durations"):
        assert getattr(event, name) == getattr(vendors, name)
    assert event.timestamp == 5


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [("started", started_body, OnlineRecordStarted), ("stopped", stopped_body, OnlineRecordStopped)],
)
def test_started_and_stopped_bodies_are_the_vendors(name: str, body: Any, kind: type) -> None:
    vendors = json.loads(sample(f"{name}.json"))
    data = vendors["EventData"]
    ours = body(
        vendors["SdkAppId"],
        data["TaskId"],
        timestamp=vendors["Timestamp"],
        room_id=data["RoomId"],
        record_user_id=data["RecordUserId"],
    )
    assert isinstance(decoded(ours).event, kind)
    # The very id of the vendor's own, so that both are one event.
    assert decoded(ours).event_id == decoded(sample(f"{name}.json")).event_id
    assert decoded(ours).event_id == event_id(vendors["SdkAppId"], kind.__name__, vendors["Timestamp"], data)


_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(["Status", "TaskId", "Error", *finished_members()])


@given(st.dictionaries(_names, _values | st.sampled_from(["FINISHED", "STOPPED", "RECORDING", TASK]), max_size=6))
def test_whatever_an_answer_holds_a_result_makes_a_callback_that_is_understood(changed: dict[str, Any]) -> None:
    found = judged(finished(**changed))
    if isinstance(found, Finished):
        event = decode(finished_body(APP, found.record), received_at_us=RECEIVED_AT_US)
        assert isinstance(event.event, OnlineRecordFinished)
        assert event.odd_members == ()
        assert len(event.event.video_infos) == len(found.record.video_infos)


@given(st.binary(max_size=64))
def test_no_bytes_fail_to_be_judged(content: bytes) -> None:
    judged(content)
