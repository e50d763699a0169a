import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import (
    CallbackEvent,
    Event,
    FinishReason,
    OnlineRecordFinished,
    OnlineRecordLongPauseForceStopped,
    OnlineRecordLongPauseWarning,
    OnlineRecordStarted,
    OnlineRecordStopped,
    RecognizedEvent,
    Unrecognized,
    VideoType,
    decode,
)
from simulator import Callback, ClassKind, play_class, render

APP = 1_400_000_001
NOW_US = 1_780_000_000_000_000

EVENTS: dict[ClassKind, list[type[Event]]] = {
    ClassKind.NORMAL: [OnlineRecordStarted, OnlineRecordStopped, OnlineRecordFinished],
    ClassKind.SEVERAL_STREAMS: [OnlineRecordStarted, OnlineRecordStopped, OnlineRecordFinished],
    ClassKind.FAILED: [OnlineRecordStarted, OnlineRecordFinished],
    ClassKind.LONG_PAUSE_RESUMED: [
        OnlineRecordStarted,
        OnlineRecordLongPauseWarning,
        OnlineRecordStopped,
        OnlineRecordFinished,
    ],
    ClassKind.LONG_PAUSE_FORCE_STOPPED: [
        OnlineRecordStarted,
        OnlineRecordLongPauseWarning,
        OnlineRecordLongPauseForceStopped,
        OnlineRecordFinished,
    ],
    ClassKind.JOINED_VIDEOS: [OnlineRecordStarted, OnlineRecordStopped, OnlineRecordFinished],
    ClassKind.ERROR_ONLY: [OnlineRecordFinished],
    ClassKind.UNSIGNED: [OnlineRecordStarted, OnlineRecordStopped, OnlineRecordFinished],
    ClassKind.OTHER_FAMILIES: [
        Unrecognized,
        Unrecognized,
        Unrecognized,
        OnlineRecordStarted,
        Unrecognized,
        Unrecognized,
        OnlineRecordStopped,
        OnlineRecordFinished,
    ],
}
SEEDS = st.integers(min_value=0, max_value=2**64)


def play(kind: ClassKind, seed: int) -> tuple[Callback, ...]:
    return play_class(kind, Random(seed), sdk_app_id=APP, room_id=880528)


def decoded(callbacks: tuple[Callback, ...]) -> list[CallbackEvent]:
    return [decode(render(callback), received_at_us=NOW_US).event for callback in callbacks]


def finished(kind: ClassKind, seed: int) -> OnlineRecordFinished:
    event = decoded(play(kind, seed))[-1]
    assert isinstance(event, OnlineRecordFinished)
    return event


@pytest.mark.parametrize("kind", ClassKind)
@given(seed=SEEDS)
def test_every_kind_decodes_into_its_events(kind: ClassKind, seed: int) -> None:
    assert [type(event) for event in decoded(play(kind, seed))] == EVENTS[kind]


@pytest.mark.parametrize("kind", ClassKind)
@given(seed=SEEDS)
def test_events_come_to_be_in_order_and_each_has_its_own_id(kind: ClassKind, seed: int) -> None:
    callbacks = play(kind, seed)

    timestamps = [callback.timestamp for callback in callbacks if callback.event_type.startswith("OnlineRecord")]
    assert timestamps == sorted(timestamps)
    assert len({callback.event_id for callback in callbacks}) == len(callbacks)


@pytest.mark.parametrize("kind", ClassKind)
def test_the_same_seed_plays_the_same_bytes(kind: ClassKind) -> None:
    assert [render(callback) for callback in play(kind, 7)] == [render(callback) for callback in play(kind, 7)]


@pytest.mark.parametrize("kind", [kind for kind in ClassKind if kind is not ClassKind.ERROR_ONLY])
def test_all_callbacks_of_a_class_share_its_task(kind: ClassKind) -> None:
    assert len({json.loads(callback.event_data)["TaskId"] for callback in play(kind, 7)}) == 1


@pytest.mark.parametrize("kind", ClassKind)
@given(seed=SEEDS)
def test_videos_lie_within_the_recording(kind: ClassKind, seed: int) -> None:
    event = finished(kind, seed)

    for video in event.video_infos:
        assert video.video_play_time_ms is not None
        assert video.video_duration_ms is not None
        assert event.total_time_ms is not None
        assert video.video_play_time_ms >= 0
        assert video.video_play_time_ms + video.video_duration_ms <= event.total_time_ms


def test_a_failed_class_has_an_error_and_no_videos() -> None:
    event = finished(ClassKind.FAILED, 7)

    assert event.error is not None
    assert event.error.code == "FailedOperation.Record"
    assert event.finish_reason is FinishReason.EXCEPTION
    assert event.record_start_time == 0
    assert event.video_infos == ()


def test_the_older_failure_has_nothing_but_an_error() -> None:
    (callback,) = play(ClassKind.ERROR_ONLY, 7)

    assert set(json.loads(callback.event_data)) == {"Error"}


@given(seed=SEEDS)
def test_several_streams_show_every_type_of_video(seed: int) -> None:
    videos = finished(ClassKind.SEVERAL_STREAMS, seed).video_infos

    assert {video.video_type for video in videos} == set(VideoType)
    assert {video.user_id for video in videos if video.video_type is VideoType.WHITEBOARD} == {""}
    assert len({video.video_id for video in videos}) == len(videos)
    assert len({video.user_id for video in videos if video.video_type is VideoType.MIXED_STREAM}) >= 2


@given(seed=SEEDS)
def test_joined_videos_leave_the_pauses_out(seed: int) -> None:
    event = finished(ClassKind.JOINED_VIDEOS, seed)

    assert event.omitted_durations
    assert event.record_start_time is not None
    assert event.record_stop_time is not None
    omitted_ms = 0
    for omitted in event.omitted_durations:
        assert omitted.pause_time_ms is not None
        assert omitted.resume_time_ms is not None
        assert omitted.video_time_ms == omitted.pause_time_ms - event.record_start_time * 1_000 - omitted_ms
        omitted_ms += omitted.resume_time_ms - omitted.pause_time_ms
    wall_ms = (event.record_stop_time - event.record_start_time) * 1_000
    assert event.total_time_ms is not None
    assert 0 <= wall_ms - omitted_ms - event.total_time_ms <= 1_000


@given(seed=SEEDS)
def test_a_forced_stop_comes_when_the_warning_said(seed: int) -> None:
    _, warning, stop, _ = decoded(play(ClassKind.LONG_PAUSE_FORCE_STOPPED, seed))

    assert isinstance(warning, OnlineRecordLongPauseWarning)
    assert isinstance(stop, OnlineRecordLongPauseForceStopped)
    assert stop.pause_time == warning.pause_time
    assert stop.stop_time == warning.estimate_stop_time


def test_the_oldest_form_names_no_application() -> None:
    events: list[RecognizedEvent] = [e for e in decoded(play(ClassKind.UNSIGNED, 7)) if not isinstance(e, Unrecognized)]

    assert {event.sdk_app_id for event in events} == {0}
    assert all(callback.sdk_app_id is None for callback in play(ClassKind.UNSIGNED, 7))


def test_other_families_use_the_task_id_of_a_recording() -> None:
    callbacks = play(ClassKind.OTHER_FAMILIES, 7)

    assert {callback.event_type for callback in callbacks} >= {"TranscodeFinished", "WhiteboardPushStopped"}
    assert all(callback.sdk_app_id == APP for callback in callbacks)


@given(seed=SEEDS)
def test_a_pause_is_not_part_of_the_recording(seed: int) -> None:
    event = finished(ClassKind.LONG_PAUSE_RESUMED, seed)

    assert event.record_start_time is not None
    assert event.record_stop_time is not None
    assert event.total_time_ms is not None
    # It lasted at least half of the shorter limit, which is 30 minutes.
    assert event.total_time_ms < (event.record_stop_time - event.record_start_time - 900) * 1_000
