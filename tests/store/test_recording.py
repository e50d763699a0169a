from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import FinishReason
from store import KeptEvent, Recording, RecordingStatus, fold
from tests.store.classes import START_US, callback, keep, random_deliveries


def folded(*contents: dict[str, Any]) -> Recording:
    return fold(keep(content) for content in contents)


def of(event_type: str, timestamp: int = 100, **event_data: Any) -> dict[str, Any]:
    return callback(f"OnlineRecord{event_type}", timestamp, **{"TaskId": "t"} | event_data)


@given(st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_every_order_with_repetitions_folds_to_the_same(random: Any, other: Any) -> None:
    deliveries = random_deliveries(random, task_id="t")
    shuffled = [*deliveries, *deliveries]
    other.shuffle(shuffled)
    assert fold(shuffled) == fold(deliveries)


def contradicted(content: dict[str, Any]) -> KeptEvent:
    return keep(content, verified=False)


def test_what_the_vendor_contradicts_counts_for_nothing_beside_what_it_does_not() -> None:
    forged = contradicted(of("Finished", 900, TotalTime=1, RoomId=666))
    recording = fold([forged, keep(of("Started", RoomId=1))])
    assert (recording.status, recording.room_id, recording.verified) == ("RECORDING", 1, None)
    assert recording.total_time_ms is None
    assert [ref.verified for ref in recording.events] == [None, False]
    real = keep(of("Finished", 100, TotalTime=2), source="reconcile", verified=True)
    for order in ([forged, real], [real, forged]):
        assert (fold(order).total_time_ms, fold(order).verified) == (2, True)


def test_what_the_vendor_contradicts_counts_where_there_is_nothing_else() -> None:
    started = contradicted(of("Started", 100, RoomId=1))
    finished = [contradicted(of("Finished", at, TotalTime=at)) for at in (101, 102)]
    recording = fold([*finished, started])
    assert (recording.status, recording.total_time_ms, recording.verified) == ("FINISHED", 102, False)
    assert recording.room_id == 1


@pytest.mark.parametrize(
    ("verified", "expected"),
    [([None, None], None), ([None, False], False), ([False, True], True), ([True, None, False], True)],
)
def test_what_the_vendor_confirmed_once_stays_so_and_what_it_contradicted_once_else(
    verified: list[bool | None], expected: bool | None
) -> None:
    kept = [keep(of("Finished"), verified=one) for one in verified]
    assert fold(kept).verified is fold(kept[::-1]).verified is expected


def test_the_vendors_own_callback_wins_over_what_it_answered_before() -> None:
    answered = keep(of("Finished", 100, TotalTime=1), source="reconcile", verified=True)
    late = keep(of("Finished", 101, TotalTime=2))
    assert (fold([answered, late]).total_time_ms, fold([answered, late]).verified) == (2, None)


def test_the_same_event_by_an_answer_and_by_a_callback_came_by_a_callback() -> None:
    content = of("Finished")
    both = [keep(content, source="reconcile"), keep(content, received_at_us=START_US + 1)]
    for order in (both, both[::-1]):
        (ref,) = fold(order).events
        assert (ref.source, ref.received_at) == ("", "2023-11-14T22:13:20.000000Z")
        assert fold(order).found == ()


def test_what_no_callback_had_told_was_found_so_late_by_that_call() -> None:
    start_s = START_US // 1_000_000
    kept = [
        keep(of("Started", start_s - 40), source="reconcile"),
        keep(of("Stopped", start_s - 30)),
        keep(of("Finished", start_s - 20), received_at_us=START_US + 3_999_999, source="reconcile"),
    ]
    found = fold(kept, found_by="DescribeRunningTasks").found
    assert [(one.event_type, one.by, one.late_s) for one in found] == [
        ("OnlineRecordStarted", "DescribeRunningTasks", 40),
        ("OnlineRecordFinished", "DescribeOnlineRecord", 23),
    ]
    assert found[0].found_at == "2023-11-14T22:13:20.000000Z"
    # The recording was known by a callback, of another event: who told of its start was asked for it by its TaskId.
    assert {one.by for one in fold(kept).found} == {"DescribeOnlineRecord"}


@pytest.mark.parametrize(
    ("event_types", "status"),
    [
        (["Started"], "RECORDING"),
        (["LongPauseWarning", "Started"], "PAUSED"),
        (["Stopped", "LongPauseWarning"], "STOPPED"),
        (["LongPauseForceStopped", "LongPauseWarning"], "STOPPED"),
        (["Finished", "Stopped", "LongPauseForceStopped", "Started"], "FINISHED"),
    ],
)
def test_the_status_is_the_highest_seen_whatever_the_timestamps(event_types: list[str], status: str) -> None:
    contents = [of(event_type, timestamp) for timestamp, event_type in enumerate(event_types)]
    assert folded(*contents).status is RecordingStatus(status)
    assert folded(*contents[::-1]).status is RecordingStatus(status)


def test_a_finished_event_with_an_error_also_finishes() -> None:
    recording = folded(of("Finished", Error={"Code": "c", "Message": "m"}))
    assert recording.status is RecordingStatus.FINISHED
    assert recording.error is not None
    assert (recording.error.code, recording.error.message) == ("c", "m")


def test_a_finished_event_without_error_beats_a_later_one_with() -> None:
    recording = folded(of("Finished", 100, TotalTime=1), of("Finished", 900, Error={"Code": "c"}, TotalTime=2))
    assert recording.error is None
    assert recording.total_time_ms == 1
    assert len(recording.events) == 2


def test_the_later_of_two_events_of_one_type_counts_whole() -> None:
    recording = folded(of("Finished", 100, TotalTime=1, GroupId="g"), of("Finished", 101, ExceptionCnt=0))
    assert (recording.total_time_ms, recording.group_id, recording.exception_count) == (None, None, 0)


def test_of_two_events_at_one_time_the_greater_event_id_counts() -> None:
    one, other = keep(of("Finished", TotalTime=1)), keep(of("Finished", TotalTime=2))
    winner = max(one, other, key=lambda kept: kept.event_id)
    assert fold([one, other]).total_time_ms == fold([winner]).total_time_ms


def test_the_pause_comes_from_the_forced_stop_and_else_from_the_warning() -> None:
    warning = of("LongPauseWarning", PauseTime=5, EstimateStopTime=6)
    assert folded(warning).pause_time == 5
    assert folded(warning).force_stop_time is None
    both = folded(warning, of("LongPauseForceStopped", 99, PauseTime=7, StopTime=8))
    assert (both.pause_time, both.estimate_stop_time, both.force_stop_time) == (7, 6, 8)
    assert folded(warning, of("LongPauseForceStopped", 99, StopTime=8)).pause_time == 5


def test_room_and_user_come_from_the_highest_status_that_has_them() -> None:
    recording = folded(
        of("Started", 900, RoomId=1, RecordUserId="one"), of("Stopped", 100, RoomId=2), of("Finished", 50)
    )
    assert (recording.room_id, recording.record_user_id) == (2, "one")


def test_values_are_as_sent_and_absent_ones_are_none() -> None:
    recording = folded(of("Finished", FinishReason="NEW", RecordStartTime=0, VideoInfos=[{"VideoType": 99}, {}]))
    assert recording.finish_reason == "NEW"
    assert recording.finish_reason not in {*FinishReason}
    assert recording.record_start_time == 0
    assert recording.record_stop_time is None
    assert recording.omitted_durations == ()
    assert [video.video_type for video in recording.videos] == [99, None]


def test_an_odd_member_costs_its_place_and_the_recording_is_finished() -> None:
    videos = [{"VideoId": "a", "VideoUrl": "u"}, "?", {"VideoId": "b", "VideoSize": "12", "Width": "wide"}, None]
    recording = folded(of("Started"), of("Finished", VideoInfos=videos, TotalTime=[], RecordStopTime="9", RoomId=7))
    assert recording.status is RecordingStatus.FINISHED
    assert (recording.total_time_ms, recording.record_stop_time, recording.room_id) == (None, 9, 7)
    assert [video.video_id for video in recording.videos] == ["a", None, "b", None]
    assert (recording.videos[2].video_size, recording.videos[2].width) == (12, None)


def test_an_event_that_was_accepted_twice_was_accepted_when_it_first_was() -> None:
    content = of("Started")
    later, earlier = keep(content, received_at_us=START_US + 5), keep(content, received_at_us=START_US)
    assert [ref.received_at for ref in fold([later, earlier]).events] == ["2023-11-14T22:13:20.000000Z"]


def test_events_are_listed_by_timestamp_then_type_then_id() -> None:
    kept = [keep(of(kind, at, RoomId=room)) for at in (2, 1) for kind in ("Stopped", "Finished") for room in (1, 2)]
    order = [(ref.timestamp, ref.event_type, ref.event_id) for ref in fold(kept).events]
    assert order == sorted(order)
    assert len(order) == 8


@pytest.mark.parametrize(
    "kept",
    [
        [],
        [keep(callback("OnlineRecordFinished", Error={"Code": "c"}))],
        [keep(callback("TranscodeFinished", TaskId="t"))],
        [keep(of("Started")), keep(of("Started") | {"SdkAppId": 2})],
    ],
    ids=["none", "without TaskId", "another family", "two apps"],
)
def test_events_that_make_no_one_recording_are_refused(kept: list[KeptEvent]) -> None:
    with pytest.raises(ValueError, match="recording"):
        fold(kept)
