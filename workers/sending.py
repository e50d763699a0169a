"""Test callbacks, made up as the vendor would send them.

One goes the way that a callback goes once it was accepted, and needs no key. Its source is `test`: nothing is asked or
fetched of it, nobody is told, and its TaskId says what it is wherever it is shown.
"""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from broker import Message
from schemas import UNRECOGNIZED, Unrecognized, decode
from store import TEST_SOURCE

#: What can be sent, in the order of a recording's life, and the EventType that tells it.
TEST_EVENT_TYPES: Final[Mapping[str, str]] = {
    "started": "OnlineRecordStarted",
    "long_pause_warning": "OnlineRecordLongPauseWarning",
    "long_pause_force_stopped": "OnlineRecordLongPauseForceStopped",
    "stopped": "OnlineRecordStopped",
    "finished": "OnlineRecordFinished",
    "failed": "OnlineRecordFinished",
    "unknown": "OnlineRecordTested",
}

#: The application and room of the vendor's own documents.
EXAMPLE_APP: Final = 1400000001
EXAMPLE_ROOM: Final = 880528

#: A name that is reserved for examples: who fetches the files of a test disturbs nobody.
_FILES: Final = "http://test-recording.file.example"

#: A class lasted so long before it was stopped, and was paused for so long.
_CLASS_S: Final = 2400
_PAUSED_S: Final = 1200

_TASK_ID: Final = re.compile(r"test-[0-9a-z-]{8,60}")


def new_test_task_id() -> str:
    """Return a TaskId that no other test has, and that says that it is one."""
    return f"test-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def is_test_task_id(task: str) -> bool:
    """Say whether a TaskId is a test's."""
    return _TASK_ID.fullmatch(task) is not None


def make_test(kind: str, *, app: int, room: int, task: str, now_s: float) -> Message:
    """Return a callback as the vendor would have sent it just now, as it is once it was accepted.

    `kind` is one of `TEST_EVENT_TYPES`, `task` the TaskId, `now_s` Unix seconds.
    """
    content = {
        "SdkAppId": app,
        "EventType": TEST_EVENT_TYPES[kind],
        "Timestamp": int(now_s),
        "EventData": _event_data(kind, room=room, task=task, now=int(now_s)),
    }
    body = msgspec.json.encode(content)
    received_at_us = round(now_s * 1_000_000)
    decoded = decode(body, received_at_us=received_at_us)
    is_unknown = isinstance(decoded.event, Unrecognized)
    return Message(
        body=body,
        event_id=decoded.event_id,
        routing_key=UNRECOGNIZED if is_unknown else type(decoded.event).__name__,
        received_at_us=received_at_us,
        source=TEST_SOURCE,
    )


def _event_data(kind: str, *, room: int, task: str, now: int) -> dict[str, Any]:
    teacher = f"tic_record_user_{room}_test"
    subject: dict[str, Any] = {"RecordUserId": teacher, "RoomId": room, "TaskId": task}
    began = now - _CLASS_S
    match kind:
        case "long_pause_warning":
            return subject | {"PauseTime": now - _PAUSED_S, "EstimateStopTime": now + _PAUSED_S}
        case "long_pause_force_stopped":
            return subject | {"PauseTime": now - _PAUSED_S, "StopTime": now}
        case "finished":
            return _finished(subject, room=room, began=began, now=now) | {"VideoInfos": _videos(room)}
        case "failed":
            error = {"Code": "FailedOperation.Record", "Message": "this is a test: nothing was recorded"}
            failed = {"RecordStartTime": 0, "TotalTime": 0, "FinishReason": "EXCEPTION", "Error": error}
            return _finished(subject, room=room, began=began, now=now) | failed
    return subject


def _finished(subject: Mapping[str, Any], *, room: int, began: int, now: int) -> dict[str, Any]:
    return {
        **subject,
        "GroupId": str(room),
        "FinishReason": "USER_CALL",
        "RecordStartTime": began,
        "RecordStopTime": now,
        "TotalTime": _CLASS_S * 1000,
        "ExceptionCnt": 0,
        "OmittedDurations": [],
        "VideoInfos": [],
    }


def _videos(room: int) -> list[dict[str, Any]]:
    """Return a camera and the whiteboard; nothing is behind their addresses."""
    folder = secrets.token_hex(8)
    videos = []
    for video_type, user in ((0, "teacher_0001"), (2, "")):
        video_id = secrets.token_hex(16)
        videos.append(
            {
                "VideoId": video_id,
                "VideoUrl": f"{_FILES}/{room}/{folder}/{video_id}.mp4",
                "VideoFormat": "mp4",
                "VideoType": video_type,
                "VideoSize": 64_000_000,
                "VideoPlayTime": 0,
                "VideoDuration": _CLASS_S * 1000,
                "UserId": user,
                "Width": 1280,
                "Height": 720,
            }
        )
    return videos
