"""Recordings whose files lie in an archive, or do not, for the tests of the player."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from archive import Place
from schemas import Manifest, ManifestFile, decode, file_key
from store import (
    ArchivePlan,
    KeptEvent,
    PlannedFile,
    Recording,
    RecordingVideo,
    Store,
    apply_events,
    find_recordings,
    plan_archive,
    restore_archive,
)

APP = 1_400_000_001
TASK = "ghucnligqtgtvk2624mb"
FOLDER = f"{APP}/2026-11-30_880528_{TASK}"
MEDIA = Path(__file__).parent / "media"


class File(Struct, frozen=True, kw_only=True):
    """A file of a recording: `name` is its name in the archive. Without `content` it is only to be archived."""

    name: str
    content: bytes | None = None
    video: RecordingVideo

    @property
    def key(self) -> str:
        """What identifies it."""
        return file_key(self.video)


def a_file(name: str, content: bytes | None = b"", **changes: Any) -> File:
    """Return a file; `changes` are members of what the vendor says of it."""
    ending = name.rpartition(".")[2]
    values: dict[str, Any] = {
        "video_id": f"id of {name}",
        "video_url": f"http://online-recording-1400000001.file.myqcloud.com/folder/{name}",
        "video_format": ending,
        "video_type": 2,
        "video_size": None if content is None else len(content),
        "video_play_time_ms": 0,
        "video_duration_ms": 12_000,
        "user_id": "",
    }
    return File(name=name, content=content, video=RecordingVideo(**values | changes))


def of_tests(name: str, media: str, **changes: Any) -> File:
    """Return a file with the bytes of one in `media/`."""
    return a_file(name, (MEDIA / media).read_bytes(), **changes)


async def keep(store: Store, place: Place, files: Sequence[File], *, task_id: str = TASK, **changes: Any) -> Recording:
    """Let a recording be finished with these files, and those that have a content be archived; return it."""
    now_s = int(time.time())
    data = {
        "TaskId": task_id,
        "RoomId": 880528,
        "FinishReason": "USER_CALL",
        "RecordStartTime": now_s - 700,
        "RecordStopTime": now_s - 600,
        "TotalTime": 20_000,
        "VideoInfos": [_as_sent(file.video) for file in files],
        **changes,
    }
    body = msgspec.json.encode(
        {"EventType": "OnlineRecordFinished", "SdkAppId": APP, "Timestamp": now_s - 500, "EventData": data}
    )
    decoded = decode(body, received_at_us=now_s * 1_000_000)
    await apply_events(
        store,
        [
            KeptEvent(
                event=decoded.event, event_id=decoded.event_id, received_at_us=(now_s - 400) * 1_000_000, body=body
            )
        ],
    )
    await place.check()
    folder = FOLDER.replace(TASK, task_id)
    for file in files:
        if file.content is not None:
            await place.put_bytes(f"{folder}/{file.name}", file.content, "application/octet-stream")
    waiting = [file for file in files if file.content is None]
    if waiting:
        await plan_archive(store, [_plan(waiting, folder, task_id, now_s)])
    kept = [file for file in files if file.content is not None]
    await restore_archive(store, [_manifest(kept, place.location(folder), folder, task_id)])
    (recording,) = await find_recordings(store, task_id, app=APP)
    return recording


def _as_sent(video: RecordingVideo) -> dict[str, Any]:
    names = {"video_play_time_ms": "VideoPlayTime", "video_duration_ms": "VideoDuration"}
    return {
        names.get(name, "".join(part.capitalize() for part in name.split("_"))): value
        for name, value in structs.asdict(video).items()
        if value is not None
    }


def _plan(files: Sequence[File], folder: str, task_id: str, now_s: int) -> ArchivePlan:
    return ArchivePlan(
        sdk_app_id=APP,
        task_id=task_id,
        folder=folder,
        active_at_us=(now_s - 400) * 1_000_000,
        answered_at_us=None,
        files=tuple(
            PlannedFile(
                file_key=file.key,
                number=100 + number,
                name=file.name,
                url=file.video.video_url or "",
                address_from="callback",
                announced_size=file.video.video_size,
                details={},
                deleted_at_us=(now_s + 86_400) * 1_000_000,
            )
            for number, file in enumerate(files)
        ),
    )


def _manifest(files: Sequence[File], location: str, folder: str, task_id: str) -> Manifest:
    return Manifest(
        sdk_app_id=APP,
        task_id=task_id,
        folder=folder,
        location=location,
        archived_at="2026-11-30T01:00:00Z",
        files=tuple(
            ManifestFile(
                file_key=file.key,
                name=file.name,
                outcome="archived",
                size=len(file.content or b""),
                sha256=hashlib.sha256(file.content or b"").hexdigest(),
                archived_at="2026-11-30T01:00:00Z",
            )
            for file in files
        ),
    )
