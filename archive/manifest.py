"""`manifest.json`: all that is known of an archived recording, written so that it is the same each time."""

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import structs

from archive.naming import check_key, is_folder_of
from schemas import Manifest, ManifestError, ManifestFile, ManifestOmission
from store import Recording

#: The form that this version writes, and the newest that it reads.
VERSION = 1

#: What SQL holds, as of `schemas.Integer` and `schemas.TaskId`.
_MAX_INTEGER = 2**63 - 1
_MAX_TASK_ID = 255
_FIRST_YEAR, _LAST_YEAR = 1970, 9999

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
    if b"\\u0000" in content:
        raise ValueError("it is no manifest: it holds the character U+0000, which SQL text cannot")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no manifest: {error}") from error
    if manifest.version != VERSION:
        raise ValueError(f"it has version {manifest.version}, which this version of tiw does not know: use a newer one")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise `ValueError` for what is never written: whoever may write to a target can write a manifest."""
    check_key(manifest.folder)
    names, keys = [file.name for file in manifest.files], [file.file_key for file in manifest.files]
    if len(set(names)) < len(names) or len(set(keys)) < len(keys):
        raise ValueError("two of its files are the same")
    if not is_folder_of(manifest.folder, manifest.sdk_app_id, manifest.task_id):
        raise ValueError(f"its folder {manifest.folder!r} is that of another recording")
    if not 0 < len(manifest.task_id) <= _MAX_TASK_ID:
        raise ValueError("its task_id is none")
    if not -_MAX_INTEGER - 1 <= manifest.sdk_app_id <= _MAX_INTEGER:
        raise ValueError("its sdk_app_id is none")
    _check_time(manifest.archived_at)
    for file in manifest.files:
        _check_file(file)


def _check_file(file: ManifestFile) -> None:
    if len(check_key(file.name)) != 1:
        raise ValueError(f"the name of a file leads out of the folder: {file.name[:200]!r}")
    for value, form in (
        (file.file_key, r"[0-9a-f]{32}"),
        (file.sha256, r"[0-9a-f]{64}"),
        (file.crc64, r"[0-9]{1,20}"),
        (file.address_from, r"vendor|callback"),
    ):
        if value is not None and not re.fullmatch(form, value):
            raise ValueError(f"{value[:100]!r} is no value that a file may have")
    for at in (file.archived_at, file.last_modified):
        if at is not None:
            _check_time(at)
    if file.outcome == "archived" and None in (file.size, file.sha256):
        raise ValueError(f"{file.name!r} is archived without a size or a digest")


def _check_time(text: str) -> None:
    at = datetime.fromisoformat(text)
    # Within a calendar of four digits in whatever zone.
    if not _FIRST_YEAR <= at.year < _LAST_YEAR:
        raise ValueError(f"{text[:100]!r} is no time of an archive")


def _bare(url: str | None) -> str | None:
    """Return an address without what is secret in it, or what is not needed to find the file again."""
    if url is None:
        return None
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))
