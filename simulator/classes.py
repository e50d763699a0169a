"""Whole classes: the callbacks of one recording, in the order in which they come to be.

Everything is drawn from a random.Random, so that a seed gives the same bytes on every machine and on every day.
Source of the contents: https://www.tencentcloud.com/document/product/1176/55568
"""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from random import Random
from typing import Any

from msgspec import Struct, structs

from simulator.callback import ENVELOPE_FIRST, RECORDING, Callback, Form, make_callback
from simulator.families import transcoding, whiteboard_push
from simulator.videos import Take, joined, many_streams, one_teacher, random_name

#: Classes begin within 90 days from here (2025-01-01), never by the clock: a seed means the same every day.
_EPOCH = 1_735_689_600
_SPAN_S = 90 * 86_400


class ClassKind(StrEnum):
    """What happens in a class."""

    NORMAL = "normal"
    SEVERAL_STREAMS = "several-streams"
    FAILED = "failed"
    #: Paused for long, reported, then resumed and ended as usual.
    LONG_PAUSE_RESUMED = "long-pause-resumed"
    LONG_PAUSE_FORCE_STOPPED = "long-pause-force-stopped"
    #: One file per stream; the pauses left out are listed.
    JOINED_VIDEOS = "joined-videos"
    #: The older form of a failure: OnlineRecordFinished with nothing but Error, without a TaskId.
    ERROR_ONLY = "error-only"
    #: The older form of the envelope: no SdkAppId and never signed, whatever the key.
    UNSIGNED = "unsigned"
    #: A normal class whose TaskId transcoding and whiteboard push use as well.
    OTHER_FAMILIES = "other-families"


#: What every receiver with the right key accepts and understands.
DEFAULT_KINDS: tuple[ClassKind, ...] = (
    ClassKind.NORMAL,
    ClassKind.FAILED,
    ClassKind.LONG_PAUSE_FORCE_STOPPED,
    ClassKind.SEVERAL_STREAMS,
    ClassKind.LONG_PAUSE_RESUMED,
    ClassKind.JOINED_VIDEOS,
)


class _Class(Struct, frozen=True, kw_only=True):
    """The facts that all callbacks of a class share. `started_at` is in Unix seconds."""

    sdk_app_id: int | None
    task_id: str
    room_id: int
    record_user_id: str
    started_at: int
    form: Form = RECORDING


def play_class(kind: ClassKind, rng: Random, *, sdk_app_id: int, room_id: int) -> tuple[Callback, ...]:
    """Return the callbacks of a class of `kind`, oldest first: at least one, each with an event_id of its own."""
    cls = _Class(
        sdk_app_id=sdk_app_id,
        task_id=random_name(rng),
        room_id=room_id,
        record_user_id=f"tic_record_user_{room_id}_{rng.randrange(1, 100):02}",
        started_at=_EPOCH + rng.randrange(_SPAN_S),
    )
    return _SCRIPTS[kind](rng, cls)


def _normal(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    stopped_at = cls.started_at + _length_s(rng)
    videos = one_teacher(rng, _take(rng, cls, stopped_at))
    return (_started(cls), _stopped(cls, stopped_at), _finished(rng, cls, stopped_at, videos))


def _several_streams(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    stopped_at = cls.started_at + _length_s(rng)
    videos = many_streams(rng, _take(rng, cls, stopped_at))
    return (_started(cls), _stopped(cls, stopped_at), _finished(rng, cls, stopped_at, videos))


def _failed(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    failed_at = cls.started_at + rng.randint(1, 120)
    finished = _recording(
        cls,
        "OnlineRecordFinished",
        failed_at,
        {
            # The backslash and the n are two characters in the vendor's own sample.
            "Error": {"Code": "FailedOperation.Record", "Message": _message(40001, failed_at, "invalid userid\\n")},
            "ExceptionCnt": 0,
            "FinishReason": "EXCEPTION",
            "GroupId": str(cls.room_id),
            "OmittedDurations": [],
            "RecordStartTime": 0,
            "RecordStopTime": failed_at,
            "RecordUserId": cls.record_user_id,
            "RoomId": cls.room_id,
            "TaskId": cls.task_id,
            "TotalTime": 0,
            "VideoInfos": [],
        },
    )
    return (_started(cls), finished)


def _long_pause_resumed(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    paused_at = cls.started_at + rng.randint(60, 1_800)
    limit_s = _pause_limit_s(rng)
    resumed_at = paused_at + rng.randint(limit_s // 2 + 1, limit_s - 1)
    stopped_at = resumed_at + _length_s(rng)
    videos = one_teacher(rng, _take(rng, cls, stopped_at - (resumed_at - paused_at)))
    return (
        _started(cls),
        _long_pause_warning(cls, paused_at, limit_s),
        _stopped(cls, stopped_at),
        _finished(rng, cls, stopped_at, videos),
    )


def _long_pause_force_stopped(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    paused_at = cls.started_at + rng.randint(60, 1_800)
    limit_s = _pause_limit_s(rng)
    stopped_at = paused_at + limit_s
    videos = one_teacher(rng, _take(rng, cls, paused_at))
    return (
        _started(cls),
        _long_pause_warning(cls, paused_at, limit_s),
        _recording(
            cls,
            "OnlineRecordLongPauseForceStopped",
            stopped_at,
            _subject(cls) | {"PauseTime": paused_at, "StopTime": stopped_at},
        ),
        _finished(rng, cls, stopped_at, videos, finish_reason="FORCE_STOP"),
    )


def _joined_videos(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    omitted = []
    now_ms, video_time_ms = cls.started_at * 1_000, 0
    for _ in range(rng.randint(1, 3)):
        recorded_ms, paused_ms = rng.randint(30_000, 1_200_000), rng.randint(5_000, 600_000)
        now_ms, video_time_ms = now_ms + recorded_ms, video_time_ms + recorded_ms
        omitted.append({"VideoTime": video_time_ms, "PauseTime": now_ms, "ResumeTime": now_ms + paused_ms})
        now_ms += paused_ms
    last_ms = rng.randint(30_000, 1_200_000)
    stopped_at = (now_ms + last_ms) // 1_000 + 1
    take = structs.replace(_take(rng, cls, stopped_at), total_time_ms=video_time_ms + last_ms)
    return (
        _started(cls),
        _stopped(cls, stopped_at),
        _finished(rng, cls, stopped_at, joined(rng, take), total_time_ms=take.total_time_ms, omitted=omitted),
    )


def _error_only(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    failed_at = cls.started_at + rng.randint(1, 120)
    # The vendor's text, and the user: without it two failures of the same second would be one event.
    reason = f"im login failed with code 6206, desc serSig expired, {cls.record_user_id} {cls.task_id}\n"
    error = {"Code": "FailedOperation.Transcode", "Message": _message(40004, failed_at, reason)}
    older = structs.replace(cls, form=ENVELOPE_FIRST)
    return (_recording(older, "OnlineRecordFinished", failed_at, {"Error": error}),)


def _unsigned(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    return _normal(rng, structs.replace(cls, sdk_app_id=None, form=ENVELOPE_FIRST))


def _other_families(rng: Random, cls: _Class) -> tuple[Callback, ...]:
    started, stopped, finished = _normal(rng, cls)
    slides = transcoding(rng, sdk_app_id=cls.sdk_app_id, task_id=cls.task_id, at=cls.started_at - 600)
    push = whiteboard_push(
        sdk_app_id=cls.sdk_app_id,
        task_id=cls.task_id,
        room_id=cls.room_id,
        started_at=cls.started_at,
        stopped_at=stopped.timestamp,
    )
    return (*slides, started, *push, stopped, finished)


_SCRIPTS: dict[ClassKind, Callable[[Random, _Class], tuple[Callback, ...]]] = {
    ClassKind.NORMAL: _normal,
    ClassKind.SEVERAL_STREAMS: _several_streams,
    ClassKind.FAILED: _failed,
    ClassKind.LONG_PAUSE_RESUMED: _long_pause_resumed,
    ClassKind.LONG_PAUSE_FORCE_STOPPED: _long_pause_force_stopped,
    ClassKind.JOINED_VIDEOS: _joined_videos,
    ClassKind.ERROR_ONLY: _error_only,
    ClassKind.UNSIGNED: _unsigned,
    ClassKind.OTHER_FAMILIES: _other_families,
}


def _recording(cls: _Class, event_type: str, at: int, event_data: dict[str, Any]) -> Callback:
    return make_callback(event_type, timestamp=at, sdk_app_id=cls.sdk_app_id, event_data=event_data, form=cls.form)


def _started(cls: _Class) -> Callback:
    return _recording(cls, "OnlineRecordStarted", cls.started_at, _bare_subject(cls))


def _stopped(cls: _Class, at: int) -> Callback:
    return _recording(cls, "OnlineRecordStopped", at, _bare_subject(cls))


def _long_pause_warning(cls: _Class, paused_at: int, limit_s: int) -> Callback:
    event_data = _subject(cls) | {"PauseTime": paused_at, "EstimateStopTime": paused_at + limit_s}
    return _recording(cls, "OnlineRecordLongPauseWarning", paused_at + limit_s // 2, event_data)


def _finished(
    rng: Random,
    cls: _Class,
    stopped_at: int,
    videos: list[dict[str, Any]],
    *,
    finish_reason: str | None = None,
    total_time_ms: int | None = None,
    omitted: list[dict[str, int]] | None = None,
) -> Callback:
    ends = [video["VideoPlayTime"] + video["VideoDuration"] for video in videos]
    event_data = {
        "TaskId": cls.task_id,
        "RoomId": cls.room_id,
        "GroupId": str(cls.room_id),
        "RecordUserId": cls.record_user_id,
        "FinishReason": finish_reason or rng.choice(("USER_CALL", "USER_CALL", "AUTO")),
        "RecordStartTime": cls.started_at,
        "RecordStopTime": stopped_at,
        "TotalTime": max(ends) if total_time_ms is None else total_time_ms,
        "ExceptionCnt": rng.choice((0, 0, 0, 1)),
        "OmittedDurations": omitted or [],
        "VideoInfos": videos,
    }
    return _recording(cls, "OnlineRecordFinished", stopped_at + rng.randint(20, 900), event_data)


def _subject(cls: _Class) -> dict[str, Any]:
    return {"TaskId": cls.task_id, "RoomId": cls.room_id, "RecordUserId": cls.record_user_id}


def _bare_subject(cls: _Class) -> dict[str, Any]:
    """Return what Started and Stopped have: sorted today, unlike in the other events and in the older form."""
    subject = _subject(cls)
    return dict(sorted(subject.items())) if cls.form is RECORDING else subject


def _take(rng: Random, cls: _Class, stopped_at: int) -> Take:
    """Return what all files share. The length counts up to `stopped_at`, from which pauses were taken off."""
    total_time_ms = (stopped_at - cls.started_at) * 1_000 - rng.randrange(1_000)
    return Take(room_id=cls.room_id, folder=random_name(rng), total_time_ms=total_time_ms)


def _length_s(rng: Random) -> int:
    return rng.randint(20, 2 * 3_600)


def _pause_limit_s(rng: Random) -> int:
    """30 and 90 minutes: the vendor's pages differ, so both occur."""
    return rng.choice((1_800, 5_400))


def _message(code: int, at: int, reason: str) -> str:
    return f"code: {code}, msg: {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}, {reason}"
