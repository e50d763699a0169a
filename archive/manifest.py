"""`manifest.json`: all that is known of an archived recording, written so that it is the same each time."""

from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import structs

from archive.naming import check_key
from schemas import Manifest, ManifestError, ManifestFile, ManifestOmission
from store import Recording

#: The form that this version writes, and the newest that it reads.
VERSION = 1

#: A manifest with 10,000 files has 8 MB.
MAX_BYTES = 32 * 1024 * 1024


def make_manifest(
    recording: Recording, files: Sequence[ManifestFile], *, folder: str, location: str, archived_at: str
) -> Manifest:
    """Return the manifest of a recording with these files, in their order.

    `folder` and `location` are the recording's place, see `Manifest`; `archived_at` is ISO 8601 text. Of addresses only
    what stands before a `?` is kept: what follows may be a signature.
    """
    error = recording.error
    return Manifest(
        version=VERSION,
        sdk_app_id=recording.sdk_app_id,
        task_id=recording.task_id,
        room_id=recording.room_id,
        group_id=recording.group_id,
        record_user_id=recording.record_user_id,
        finish_reason=recording.finish_reason,
        record_start_time=recording.record_start_time,
        record_stop_time=recording.record_stop_time,
        total_time_ms=recording.total_time_ms,
        error=None if error is None else ManifestError(code=error.code, message=error.message),
        omitted_durations=tuple(ManifestOmission(**structs.asdict(each)) for each in recording.omitted_durations),
        verified=recording.verified,
        folder=folder,
        location=location,
        archived_at=archived_at,
        files=tuple(structs.replace(file, url=_bare(file.url)) for file in files),
    )


def render_manifest(manifest: Manifest) -> bytes:
    """Return `manifest.json`: UTF-8, indented, members by name. The same manifest gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def read_manifest(content: bytes) -> Manifest:
    """Return what `render_manifest` wrote; members that are unknown are passed over.

    Raises `ValueError` if it is no manifest, one of a newer version, or one whose names lead out of its folder.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content)} bytes; a manifest has at most {MAX_BYTES}")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no manifest: {error}") from error
    if manifest.version != VERSION:
        raise ValueError(f"it has version {manifest.version}, which this version of tiw does not know: use a newer one")
    check_key(manifest.folder)
    for file in manifest.files:
        if len(check_key(file.name)) != 1:
            raise ValueError(f"the name of a file leads out of the folder: {file.name[:200]!r}")
    return manifest


def _bare(url: str | None) -> str | None:
    """Return an address without what is secret in it, or what is not needed to find the file again."""
    if url is None:
        return None
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))
