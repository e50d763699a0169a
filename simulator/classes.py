"""Whole classes: the callbacks of one recording, in the order in which they come to be.

Everything is drawn from a random.Random, so that a seed gives the same bytes on every machine and on every day.
Sources: https://www.tencentcloud.com/document/product/1176/55568 (contents) and
https://www.tencentcloud.com/document/product/1176/55569 (signature).
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from random import Random
from typing import Any

from msgspec import Struct, structs

from schemas import decode


class Bucket(Struct, frozen=True, kw_only=True):
    """Where the files of classes lie: what their addresses begin with, and how many times smaller than real they are.

    The default is a reserved name: whoever downloads what a simulated class offers disturbs nobody.
    """

    url: str = "http://online-recording-1400000001.file.example"
    shrink: int = 1


DEFAULT_BUCKET = Bucket()

_BYTES_PER_MS = 38
_LAYOUTS = (1, 2, 3, 101, 102, 103)

_CAMERA, _SCREEN_SHARE, _WHITEBOARD, _MIXED_STREAM, _AUDIO = range(5)


class Take(Struct, frozen=True, kw_only=True):
    """What all files of one recording have in common. Their addresses begin with `folder`."""

    room_id: int
    folder: str
    shrink: int
    total_time_ms: int


def random_name(rng: Random) -> str:
    """Return 20 characters in the shape of the vendor's ids: 100 bits, so that no two are ever the same."""
    bits = rng.getrandbits(100)
    return "".join("0123456789abcdefghijklmnopqrstuv"[bits >> shift & 31] for shift in range(0, 100, 5))


def one_teacher(rng: Random, take: Take) -> list[dict[str, Any]]:
    """One camera, a mixed stream and the whiteboard: the usual class."""
    return [
        _video(rng, take, _CAMERA, user_id=_person(rng)),
        _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{rng.choice(_LAYOUTS)}"),
        _video(rng, take, _WHITEBOARD, user_id=""),
    ]


def many_streams(rng: Random, take: Take) -> list[dict[str, Any]]:
    """Several cameras and microphones, a screen share, the whiteboard, and mixed streams in several layouts.

    Screen shares, mixed streams and the whiteboard have the newer Width and Height.
    """
    people = [_person(rng) for _ in range(rng.randint(2, 6))]
    layouts = rng.sample(_LAYOUTS, rng.randint(2, 4))
    return [
        *(_video(rng, take, _CAMERA, user_id=person) for person in people),
        _video(rng, take, _AUDIO, user_id=_person(rng)),
        _video(rng, take, _SCREEN_SHARE, user_id=f"tic_substream_{people[0]}", size=(1920, 1080)),
        *(
            _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{layout}", size=(1280, 720))
            for layout in layouts
        ),
        _video(rng, take, _WHITEBOARD, user_id="", size=(1280, 720)),
    ]


def joined(rng: Random, take: Take) -> list[dict[str, Any]]:
    """One file per stream, from the beginning of the class to its end."""
    return [
        _video(rng, take, _MIXED_STREAM, user_id=f"tic_mixstream_{take.room_id}_{rng.choice(_LAYOUTS)}", whole=True),
        _video(rng, take, _WHITEBOARD, user_id="", whole=True),
    ]


def _person(rng: Random) -> str:
    return f"{rng.choice(('Mac_trtc', 'iPad_trtc', 'web_trtc', 'student', 'teacher'))}_{rng.randrange(10_000):04}"


def _video(
    rng: Random,
    take: Take,
    video_type: int,
    *,
    user_id: str,
    size: tuple[int, int] | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    video_id = f"{rng.getrandbits(128):032x}"
    video_format = "mp3" if video_type == _AUDIO else "mp4"
    play_time_ms = 0 if whole else rng.randrange(max(1, min(2_000, take.total_time_ms)))
    rest_ms = take.total_time_ms - play_time_ms
    # People come and go, and share their screens for a while; what shows the class itself lasts as long as it.
    shortest_ms = max(0, rest_ms - 1_000) if video_type in (_WHITEBOARD, _MIXED_STREAM) else 0
    duration_ms = take.total_time_ms if whole else rng.randint(shortest_ms, rest_ms)
    width_and_height = {} if size is None else {"Width": size[0], "Height": size[1]}
    return {
        "UserId": user_id,
        "VideoDuration": duration_ms,
        "VideoFormat": video_format,
        "VideoId": video_id,
        "VideoPlayTime": play_time_ms,
        "VideoSize": duration_ms * rng.randint(_BYTES_PER_MS // 3, _BYTES_PER_MS) // take.shrink,
        "VideoType": video_type,
        "VideoUrl": f"{take.folder}/{video_id}.{video_format}",
        **width_and_height,
    }


class Signature(Struct, frozen=True, kw_only=True):
    """What a signed callback carries beside its content. `expire_time` is in Unix seconds."""

    expire_time: int
    sign: str

    def __repr__(self) -> str:
        """Hide the Sign: with its ExpireTime it is a token that signs any body."""
        return f"Signature(expire_time={self.expire_time}, sign=***)"


def sign(key: str, expire_time: int) -> Signature:
    """Sign with `key` until `expire_time`: MD5 over the key and the decimal ExpireTime, as lower-case hex.

    Neither the body nor anything else of the callback enters it.
    """
    # MD5 is the vendor's choice; the flag lets it run where a policy forbids MD5 for security.
    digest = hashlib.md5(f"{key}{expire_time}".encode(), usedforsecurity=False)
    return Signature(expire_time=expire_time, sign=digest.hexdigest())


class Form(Struct, frozen=True, kw_only=True):
    """How a family of callbacks is written: the order of the members, and what stands between two of them."""

    order: tuple[str, ...]
    separator: str


#: The recording events: https://www.tencentcloud.com/document/product/1176/55568
RECORDING = Form(order=("EventData", "EventType", "ExpireTime", "SdkAppId", "Sign", "Timestamp"), separator=",")
#: Whiteboard push.
SPACED = Form(order=RECORDING.order, separator=", ")
#: Document transcoding, and the older recording events.
ENVELOPE_FIRST = Form(
    order=("Timestamp", "EventType", "EventData", "ExpireTime", "SdkAppId", "Sign"),
    separator=", ",
)


class Callback(Struct, frozen=True, kw_only=True):
    """One event as the vendor would report it. `event_data` is JSON text, `timestamp` Unix seconds.

    `sdk_app_id` is None in the oldest form, which is never signed.
    """

    event_id: str
    event_type: str
    timestamp: int
    sdk_app_id: int | None
    event_data: str
    form: Form


def make_callback(
    event_type: str, *, timestamp: int, sdk_app_id: int | None, event_data: dict[str, Any], form: Form = RECORDING
) -> Callback:
    """Return the callback with the event_id that a receiver will find."""
    unidentified = Callback(
        event_id="",
        event_type=event_type,
        timestamp=timestamp,
        sdk_app_id=sdk_app_id,
        event_data=json.dumps(event_data, ensure_ascii=False, separators=(form.separator, ": ")),
        form=form,
    )
    decoded = decode(render(unidentified), received_at_us=timestamp * 1_000_000)
    return Callback(
        event_id=decoded.event_id,
        event_type=event_type,
        timestamp=timestamp,
        sdk_app_id=sdk_app_id,
        event_data=unidentified.event_data,
        form=form,
    )


def render(callback: Callback, signature: Signature | None = None) -> bytes:
    """Return the body of the request: the content, and the signature where there is one."""
    members = {
        "EventData": callback.event_data,
        "EventType": json.dumps(callback.event_type),
        "Timestamp": str(callback.timestamp),
    }
    if callback.sdk_app_id is not None:
        members["SdkAppId"] = str(callback.sdk_app_id)
    if signature is not None:
        members["ExpireTime"] = str(signature.expire_time)
        members["Sign"] = json.dumps(signature.sign)
    form = callback.form
    content = form.separator.join(f'"{name}": {members[name]}' for name in form.order if name in members)
    return f"{{{content}}}".encode()


def transcoding(rng: Random, *, sdk_app_id: int | None, task_id: str, at: int) -> tuple[Callback, ...]:
    """Return the callbacks of slides being transcoded, the first at `at` (Unix seconds).

    Source: https://cloud.tencent.com/document/product/1137/40257
    """
    pages = rng.randint(2, 120)
    title = f"第{rng.randint(1, 40)}课.pptx"
    result_url = f"https://transcode-result.example/{task_id}/index.html"
    steps = [
        ("TranscodeProgressChanged", 0, ""),
        ("TranscodeProgressChanged", rng.randint(1, 99), ""),
        ("TranscodeFinished", 100, result_url),
    ]
    return tuple(
        make_callback(
            event_type,
            timestamp=at + seconds,
            sdk_app_id=sdk_app_id,
            event_data={
                "TaskId": task_id,
                "Progress": progress,
                "Resolution": "1024x768",
                "Title": title,
                "Pages": pages,
                "ResultUrl": url,
            },
            form=ENVELOPE_FIRST,
        )
        for seconds, (event_type, progress, url) in enumerate(steps)
    )


def whiteboard_push(
    *, sdk_app_id: int | None, task_id: str, room_id: int, started_at: int, stopped_at: int
) -> tuple[Callback, ...]:
    """Return the callbacks of a whiteboard being pushed as a stream, from `started_at` to `stopped_at`.

    Source: https://www.tencentcloud.com/document/product/1176/55567
    """
    push_user_id = f"tic_push_user_{room_id}_01"
    started = {"PushStartTime": started_at, "PushUserId": push_user_id, "RoomId": room_id, "TaskId": task_id}
    stopped = {
        "TaskId": task_id,
        "RoomId": room_id,
        "GroupId": str(room_id),
        "PushUserId": push_user_id,
        "FinishReason": "USER_CALL",
        "PushStartTime": started_at,
        "PushStopTime": stopped_at,
        "IMSyncTime": started_at,
        "ExceptionCnt": 0,
    }
    events = (("WhiteboardPushStarted", started_at, started), ("WhiteboardPushStopped", stopped_at, stopped))
    return tuple(
        make_callback(event_type, timestamp=at, sdk_app_id=sdk_app_id, event_data=event_data, form=SPACED)
        for event_type, at, event_data in events
    )


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


class SimulatedClass(Struct, frozen=True, kw_only=True):
    """A whole class, as the vendor knows it. Times are in Unix seconds.

    `callbacks` are all that it sends, oldest first: at least one, each with an event_id of its own. `sdk_app_id` is the
    application's even where the callbacks do not name it. The recording exists from `created_at`; `pauses` are from
    when until when nothing was recorded, whether a callback tells of it or not.
    """

    sdk_app_id: int
    task_id: str
    room_id: int
    record_user_id: str
    created_at: int
    callbacks: tuple[Callback, ...]
    pauses: tuple[tuple[int, int], ...] = ()


class _Class(Struct, frozen=True, kw_only=True):
    """The facts that all callbacks of a class share. `started_at` is in Unix seconds."""

    sdk_app_id: int | None
    task_id: str
    room_id: int
    record_user_id: str
    started_at: int
    bucket: Bucket
    length_s: int | None
    shortest_s: int
    form: Form = RECORDING


class _Play(Struct, frozen=True):
    """What a script makes of a class."""

    callbacks: tuple[Callback, ...]
    pauses: tuple[tuple[int, int], ...] = ()


#: From its start to its Finished, of any kind: an hour and a half of pause is the most of it.
LONGEST_CLASS_S = 15_300

#: How long before its start a recording is made. The vendor does not say; it enters the room in this time.
_PREPARATION_S = 5


def make_class(
    kind: ClassKind,
    rng: Random,
    *,
    sdk_app_id: int,
    room_id: int,
    started_at: int | None = None,
    length_s: int | None = None,
    shortest_s: int = 0,
    bucket: Bucket = DEFAULT_BUCKET,
) -> SimulatedClass:
    """Return a class of `kind`, the same for the same `rng`.

    It begins at `started_at` (Unix seconds), else on a day of 2025 that the `rng` draws. `length_s` replaces the
    length of kinds that draw one, which is at least `shortest_s`, as is the time until a failure. `bucket` is where its
    files lie.
    """
    task_id = random_name(rng)
    record_user_id = f"tic_record_user_{room_id}_{rng.randrange(1, 100):02}"
    drawn_start = _EPOCH + rng.randrange(_SPAN_S)
    cls = _Class(
        sdk_app_id=sdk_app_id,
        task_id=task_id,
        room_id=room_id,
        record_user_id=record_user_id,
        started_at=drawn_start if started_at is None else started_at,
        bucket=bucket,
        length_s=length_s,
        shortest_s=shortest_s,
    )
    play = _SCRIPTS[kind](rng, cls)
    return SimulatedClass(
        sdk_app_id=sdk_app_id,
        task_id=task_id,
        room_id=room_id,
        record_user_id=record_user_id,
        created_at=cls.started_at - _PREPARATION_S,
        callbacks=play.callbacks,
        pauses=play.pauses,
    )


def play_class(kind: ClassKind, rng: Random, *, sdk_app_id: int, room_id: int) -> tuple[Callback, ...]:
    """Return the callbacks of a class of `kind`, oldest first: at least one, each with an event_id of its own."""
    return make_class(kind, rng, sdk_app_id=sdk_app_id, room_id=room_id).callbacks


def _normal(rng: Random, cls: _Class) -> _Play:
    stopped_at = cls.started_at + _length_s(rng, cls)
    videos = one_teacher(rng, _take(rng, cls, stopped_at))
    return _Play((_started(cls), _stopped(cls, stopped_at), _finished(rng, cls, stopped_at, videos)))


def _several_streams(rng: Random, cls: _Class) -> _Play:
    stopped_at = cls.started_at + _length_s(rng, cls)
    videos = many_streams(rng, _take(rng, cls, stopped_at))
    return _Play((_started(cls), _stopped(cls, stopped_at), _finished(rng, cls, stopped_at, videos)))


def _failed(rng: Random, cls: _Class) -> _Play:
    failed_at = cls.started_at + max(rng.randint(1, 120), cls.shortest_s)
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
    return _Play((_started(cls), finished))


def _long_pause_resumed(rng: Random, cls: _Class) -> _Play:
    paused_at = cls.started_at + rng.randint(60, 1_800)
    limit_s = _pause_limit_s(rng)
    resumed_at = paused_at + rng.randint(limit_s // 2 + 1, limit_s - 1)
    stopped_at = resumed_at + _length_s(rng, cls)
    videos = one_teacher(rng, _take(rng, cls, stopped_at - (resumed_at - paused_at)))
    callbacks = (
        _started(cls),
        _long_pause_warning(cls, paused_at, limit_s),
        _stopped(cls, stopped_at),
        _finished(rng, cls, stopped_at, videos),
    )
    return _Play(callbacks, pauses=((paused_at, resumed_at),))


def _long_pause_force_stopped(rng: Random, cls: _Class) -> _Play:
    paused_at = cls.started_at + rng.randint(60, 1_800)
    limit_s = _pause_limit_s(rng)
    stopped_at = paused_at + limit_s
    videos = one_teacher(rng, _take(rng, cls, paused_at))
    callbacks = (
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
    return _Play(callbacks, pauses=((paused_at, stopped_at),))


def _joined_videos(rng: Random, cls: _Class) -> _Play:
    omitted = []
    now_ms, video_time_ms = cls.started_at * 1_000, 0
    for _ in range(rng.randint(1, 3)):
        recorded_ms, paused_ms = rng.randint(30_000, 1_200_000), rng.randint(5_000, 600_000)
        now_ms, video_time_ms = now_ms + recorded_ms, video_time_ms + recorded_ms
        omitted.append({"VideoTime": video_time_ms, "PauseTime": now_ms, "ResumeTime": now_ms + paused_ms})
        now_ms += paused_ms
    last_ms = max(rng.randint(30_000, 1_200_000), cls.shortest_s * 1_000)
    stopped_at = (now_ms + last_ms) // 1_000 + 1
    take = structs.replace(_take(rng, cls, stopped_at), total_time_ms=video_time_ms + last_ms)
    callbacks = (
        _started(cls),
        _stopped(cls, stopped_at),
        _finished(rng, cls, stopped_at, joined(rng, take), total_time_ms=take.total_time_ms, omitted=omitted),
    )
    pauses = tuple((pause["PauseTime"] // 1_000, pause["ResumeTime"] // 1_000) for pause in omitted)
    return _Play(callbacks, pauses=pauses)


def _error_only(rng: Random, cls: _Class) -> _Play:
    failed_at = cls.started_at + max(rng.randint(1, 120), cls.shortest_s)
    # The vendor's text, and the user: without it two failures of the same second would be one event.
    reason = f"im login failed with code 6206, desc serSig expired, {cls.record_user_id} {cls.task_id}\n"
    error = {"Code": "FailedOperation.Transcode", "Message": _message(40004, failed_at, reason)}
    older = structs.replace(cls, form=ENVELOPE_FIRST)
    return _Play((_recording(older, "OnlineRecordFinished", failed_at, {"Error": error}),))


def _unsigned(rng: Random, cls: _Class) -> _Play:
    return _normal(rng, structs.replace(cls, sdk_app_id=None, form=ENVELOPE_FIRST))


def _other_families(rng: Random, cls: _Class) -> _Play:
    started, stopped, finished = _normal(rng, cls).callbacks
    slides = transcoding(rng, sdk_app_id=cls.sdk_app_id, task_id=cls.task_id, at=cls.started_at - 600)
    push = whiteboard_push(
        sdk_app_id=cls.sdk_app_id,
        task_id=cls.task_id,
        room_id=cls.room_id,
        started_at=cls.started_at,
        stopped_at=stopped.timestamp,
    )
    return _Play((*slides, started, *push, stopped, finished))


_SCRIPTS: dict[ClassKind, Callable[[Random, _Class], _Play]] = {
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
    folder = f"{cls.bucket.url}/{random_name(rng)}"
    return Take(room_id=cls.room_id, folder=folder, shrink=cls.bucket.shrink, total_time_ms=total_time_ms)


def _length_s(rng: Random, cls: _Class) -> int:
    # Drawn in any case: what is drawn after it stays the same.
    drawn = rng.randint(20, 2 * 3_600)
    return max(drawn, cls.shortest_s) if cls.length_s is None else cls.length_s


def _pause_limit_s(rng: Random) -> int:
    """30 and 90 minutes: the vendor's pages differ, so both occur."""
    return rng.choice((1_800, 5_400))


def _message(code: int, at: int, reason: str) -> str:
    return f"code: {code}, msg: {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}, {reason}"
