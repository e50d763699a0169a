"""What is archived of a recording, as a value: the manifest beside its files, and the event that tells of it.

Unlike the five events these are ours, not the vendor's. `manifest.json` has the attributes' own names.
"""

import hashlib
from typing import Literal, Protocol, TypeAlias, final

from msgspec import Struct

from schemas.events import Integer, RecognizedEvent, TaskId, Unrecognized, wire_name

#: The EventType of `RecordingArchived`, and its routing key.
RECORDING_ARCHIVED = "RecordingArchived"

#: `archived`: it is there, whole. `lost`: the vendor deleted it before it could be had. `refused`: its address is none
#: that may be fetched from, or it is larger than may be.
FileOutcome: TypeAlias = Literal["archived", "lost", "refused"]


class FileOfRecording(Protocol):
    """What tells one file of a recording from the others, as the vendor says it."""

    @property
    def video_id(self) -> str | None: ...

    @property
    def video_url(self) -> str | None: ...

    @property
    def video_size(self) -> int | None: ...


def file_key(video: FileOfRecording) -> str:
    """Return what identifies a file within its recording: 32 hex digits.

    They are made of the VideoId, or where there is none of the URL's path, and of the VideoSize. So a repeated or
    amended event names the same files, whatever host or signature their addresses have.
    """
    named = f"id {video.video_id}" if video.video_id else f"path {_path(video.video_url or '')}"
    return hashlib.sha256(f"{named}\n{video.video_size}".encode(errors="surrogatepass")).hexdigest()[:32]


def _path(url: str) -> str:
    """Return the path in a URL, which may be any text: what `urlsplit` refuses has one, too."""
    without_query = url.partition("#")[0].partition("?")[0]
    _, is_absolute, behind = without_query.partition("://")
    return behind[behind.find("/") :] if is_absolute and "/" in behind else without_query


class ManifestFile(Struct, frozen=True, kw_only=True):
    """One file of a recording.

    `name` is its name in the recording's folder; of one that is not there it is the name that it would have. `file_key`
    identifies it. `size` in bytes, `sha256` in hex and `crc64` (CRC-64/XZ, in decimal, as the vendor writes it) are
    those of the archived bytes; `announced_size` is what the vendor said. `url` is where it was fetched from, without
    what stands behind a `?`; `address_from` says who named that address: `vendor` (its API) or `callback`. `checked` is
    what its bytes were compared with: `size`, `crc64`. `etag` and `last_modified` are the source's own, the latter and
    `archived_at` as ISO 8601 text in UTC. `starts_at_ms` is where it begins on the recording's time line.
    """

    file_key: str
    name: str
    outcome: FileOutcome
    reason: str | None = None
    size: Integer | None = None
    announced_size: Integer | None = None
    sha256: str | None = None
    crc64: str | None = None
    checked: tuple[str, ...] = ()
    archived_at: str | None = None
    url: str | None = None
    address_from: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    video_id: str | None = None
    video_type: Integer | None = None
    video_format: str | None = None
    user_id: str | None = None
    width: Integer | None = None
    height: Integer | None = None
    starts_at_ms: Integer | None = None
    duration_ms: Integer | None = None


class ManifestError(Struct, frozen=True, kw_only=True):
    """Why the recording failed, as the vendor says it."""

    code: str | None = None
    message: str | None = None


class ManifestOmission(Struct, frozen=True, kw_only=True):
    """A stretch that joined videos leave out: the video's time, and when the pause began and ended."""

    video_time_ms: int | None = None
    pause_time_ms: int | None = None
    resume_time_ms: int | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """What was archived of one recording: all that is needed to open its folder without us, and to rebuild our rows.

    `version` is that of this form. Times without a unit in their name are Unix seconds, as the vendor gives them.
    `verified` says whether the vendor's API confirmed the recording, None if it was not asked. `folder` is the
    recording's place below the target; `location` the whole of it, such as `/srv/classes/...` or `s3://bucket/...`.
    """

    version: int = 1
    sdk_app_id: int
    task_id: str
    room_id: int | None = None
    group_id: str | None = None
    record_user_id: str | None = None
    finish_reason: str | None = None
    record_start_time: int | None = None
    record_stop_time: int | None = None
    total_time_ms: int | None = None
    error: ManifestError | None = None
    omitted_durations: tuple[ManifestOmission, ...] = ()
    verified: bool | None = None
    folder: str
    location: str
    archived_at: str
    files: tuple[ManifestFile, ...] = ()


@final
class RecordingArchived(Struct, frozen=True, kw_only=True, rename=wire_name):
    """All files of a recording are archived and were checked. An event of ours: the vendor knows nothing of it.

    It comes once for each manifest: again only if the recording got more files later. `timestamp` is when, in Unix
    seconds.
    """

    timestamp: Integer
    sdk_app_id: Integer = 0
    task_id: TaskId
    room_id: Integer | None = None
    manifest: Manifest


#: All that a consumer may take: the vendor's five, ours, and the rest.
Event: TypeAlias = RecognizedEvent | RecordingArchived | Unrecognized
