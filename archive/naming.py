"""The names under which a recording is archived: what a person looks for first, and what no other recording has."""

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from schemas import VideoType
from store import Recording, RecordingVideo

#: What every recording's folder has beside its files.
MANIFEST_NAME = "manifest.json"
PAGE_NAME = "index.html"

#: The vendor's classes begin and end in China, whose time has no summer time.
_CHINA = timezone(timedelta(hours=8))

_KINDS = {
    VideoType.CAMERA: "camera",
    VideoType.SCREEN_SHARE: "screen",
    VideoType.WHITEBOARD: "whiteboard",
    VideoType.MIXED_STREAM: "mixed",
    VideoType.AUDIO: "audio",
}

#: The endings that a file may get. An event must not choose another: a file that ends in .html is a page.
EXTENSIONS = frozenset(
    {"aac", "flv", "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "ogg", "opus", "ts", "wav", "webm", "wmv", "avi", "mpg"}
)
_ANY_EXTENSION = "bin"

#: A folder's name stays far below the 255 bytes that file systems allow.
_LONGEST_TASK_ID = 64
_HASH_DIGITS = 12
_HASHED = re.compile(rf"_[0-9a-f]{{{_HASH_DIGITS}}}\Z")

#: Less than file systems allow, so that a temporary name can be made of each.
_MAX_PART_BYTES = 200


def recording_folder(recording: Recording) -> str:
    """Return the folder of a recording below the target: `1400000001/2026-11-30_880528_TASKID`.

    The date is that of its start in China, else of its first event. Two recordings never share a folder, and the TaskId
    can always be recognized: where it cannot stand as it is, its letters and digits stand, and a digest of it.
    """
    first = recording.events[0].timestamp if recording.events else None
    started_at = first if recording.record_start_time is None else recording.record_start_time
    room = "no-room" if recording.room_id is None else str(recording.room_id)
    return f"{recording.sdk_app_id}/{_date(started_at)}_{room}_{_safe(recording.task_id)}"


def is_folder_of(folder: str, sdk_app_id: int, task_id: str) -> bool:
    """Say whether a folder is one that a recording may have, whatever its date and room."""
    return folder.startswith(f"{sdk_app_id}/") and folder.count("/") == 1 and folder.endswith(f"_{_safe(task_id)}")


def file_name(number: int, video: RecordingVideo) -> str:
    """Return the name of a file in its recording's folder: `1_whiteboard.mp4`.

    `number` makes it unique there. The ending is the video's format or, without one, that of its address, if it is one
    of a video or a sound; else `.bin`.
    """
    return f"{number}_{kind_of(video.video_type)}.{_extension(video)}"


def kind_of(video_type: int | None) -> str:
    """Return the word for what a video shows."""
    return "video" if video_type is None else _KINDS.get(VideoType(video_type), "video")


def check_key(key: str) -> tuple[str, ...]:
    """Return the parts of a key, which is a path below the target, as its folders and a file.

    Raises `ValueError` if it is none: a part that leads elsewhere, is hidden, or no name on every system.
    """
    parts = tuple(key.split("/"))
    for part in parts:
        if not part or part[0] == "." or not part.isprintable() or "\\" in part or len(part.encode()) > _MAX_PART_BYTES:
            raise ValueError(f"{key[:200]!r} cannot be a path below the target")
    return parts


def _date(at: int | None) -> str:
    if at is None:
        return "undated"
    try:
        return f"{datetime.fromtimestamp(at, UTC).astimezone(_CHINA):%Y-%m-%d}"
    except (OverflowError, OSError, ValueError):
        return "undated"


def _safe(task_id: str) -> str:
    """Return the TaskId as a name: different for different ones, also where capital letters make no difference."""
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", task_id)[:_LONGEST_TASK_ID].strip(".")
    if kept == task_id == task_id.lower() and kept and not _HASHED.search(kept):
        return kept
    digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kept}_{digest[:_HASH_DIGITS]}"


def _extension(video: RecordingVideo) -> str:
    named = (video.video_format or "").lower().lstrip(".")
    if not named and video.video_url:
        try:
            named = PurePosixPath(urlsplit(video.video_url).path).suffix.lower().lstrip(".")
        except ValueError:
            named = ""
    return named if named in EXTENSIONS else _ANY_EXTENSION
