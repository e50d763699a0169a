"""Recordings and manifests to archive, for tests."""

from typing import Any

from schemas import Manifest, ManifestFile, ManifestOmission, RecordingStatus
from store import Recording, RecordingEventRef, RecordingVideo

#: 2026-11-30 01:00:00 in China, when it is still the 29th in Europe.
STARTED_AT = 1_795_971_600


def recording(**changes: Any) -> Recording:
    values: dict[str, Any] = {
        "sdk_app_id": 1_400_000_001,
        "task_id": "ghucnligqtgtvk2624mb",
        "room_id": 880_528,
        "group_id": "880528",
        "record_user_id": "tic_record_user_880528_test-01",
        "status": RecordingStatus.FINISHED,
        "finish_reason": "USER_CALL",
        "error": None,
        "record_start_time": STARTED_AT,
        "record_stop_time": STARTED_AT + 60,
        "total_time_ms": 60_000,
        "exception_count": 0,
        "pause_time": None,
        "estimate_stop_time": None,
        "force_stop_time": None,
        "omitted_durations": (),
        "verified": True,
        "videos": (),
        "events": (),
        "found": (),
    }
    return Recording(**values | changes)


def video(**changes: Any) -> RecordingVideo:
    values: dict[str, Any] = {"video_type": 2, "video_format": "mp4"}
    return RecordingVideo(**values | changes)


def event(timestamp: int) -> RecordingEventRef:
    return RecordingEventRef(
        event_id="e", event_type="OnlineRecordFinished", timestamp=timestamp, received_at="", source="", verified=None
    )


def file(name: str = "1_whiteboard.mp4", **changes: Any) -> ManifestFile:
    values: dict[str, Any] = {
        "file_key": "0" * 32,
        "name": name,
        "outcome": "archived",
        "size": 1_000,
        "sha256": "0" * 64,
        "video_type": 2,
        "starts_at_ms": 0,
        "duration_ms": 60_000,
    }
    return ManifestFile(**values | changes)


def manifest(*files: ManifestFile, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "sdk_app_id": 1_400_000_001,
        "task_id": "ghucnligqtgtvk2624mb",
        "room_id": 880_528,
        "record_start_time": STARTED_AT,
        "total_time_ms": 60_000,
        "omitted_durations": (ManifestOmission(video_time_ms=5_000, pause_time_ms=1_000, resume_time_ms=61_000),),
        "folder": "1400000001/2026-11-30_880528_ghucnligqtgtvk2624mb",
        "location": "/srv/classes/1400000001/2026-11-30_880528_ghucnligqtgtvk2624mb",
        "archived_at": "2026-11-30T01:00:00Z",
        "files": files,
    }
    return Manifest(**values | changes)
