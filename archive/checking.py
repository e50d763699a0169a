"""Whether what was archived is still there and whole, and the rows of the store made again from what is there."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

from archive.manifest import MAX_BYTES, read_manifest
from archive.naming import MANIFEST_NAME
from archive.places import Place, PlaceError
from schemas import Manifest
from store import Store, restore_archive

_AT_ONCE: Final = 100

Verdict: TypeAlias = Literal["whole", "changed", "missing", "unreadable"]


class CheckedFile(Struct, frozen=True, kw_only=True):
    """What became of one archived file: `changed` has other bytes than were archived. `detail` says more."""

    sdk_app_id: int
    task_id: str
    location: str
    size: int | None
    verdict: Verdict
    detail: str


class ExpectedFile(Struct, frozen=True, kw_only=True):
    """A file as it was archived; `key` is its place below the target."""

    sdk_app_id: int
    task_id: str
    key: str
    size: int | None
    sha256: str | None


async def check_file(place: Place, file: ExpectedFile, *, on_bytes: Callable[[int], None]) -> CheckedFile:
    """Read an archived file, and compare it with what it was; `on_bytes` is told of each piece that was read."""

    def checked(verdict: Verdict, detail: str = "") -> CheckedFile:
        return CheckedFile(
            sdk_app_id=file.sdk_app_id,
            task_id=file.task_id,
            location=place.location(file.key),
            size=file.size,
            verdict=verdict,
            detail=detail,
        )

    try:
        size = await place.size_of(file.key)
        if size is None:
            return checked("missing")
        if file.size is not None and size != file.size:
            return checked("changed", f"it has {size} bytes, and had {file.size}")
        digest = hashlib.sha256()
        async for piece in place.read(file.key):
            digest.update(piece)
            on_bytes(len(piece))
    except PlaceError as error:
        return checked("unreadable", str(error))
    if file.sha256 is not None and digest.hexdigest() != file.sha256:
        return checked("changed", "its SHA-256 is another")
    return checked("whole")


class FoundManifest(Struct, frozen=True, kw_only=True):
    """A manifest that lies at the target, without files that do not; None if it cannot be read. `problem` says why."""

    key: str
    manifest: Manifest | None
    problem: str = ""


async def find_manifests(place: Place) -> AsyncIterator[FoundManifest]:
    """Yield all manifests of the target. Raises `PlaceError` if it cannot be listed."""
    async for key in place.manifests():
        try:
            content = bytearray()
            async for piece in place.read(key):
                content += piece
                if len(content) > MAX_BYTES:
                    break
            manifest = read_manifest(bytes(content))
        except (PlaceError, ValueError) as error:
            yield FoundManifest(key=key, manifest=None, problem=str(error))
            continue
        if f"{manifest.folder}/{MANIFEST_NAME}" == key:
            yield FoundManifest(key=key, manifest=manifest)
        else:
            problem = f"it is that of {manifest.folder!r}: the folder was moved or renamed"
            yield FoundManifest(key=key, manifest=None, problem=problem)


async def rebuild(store: Store, place: Place, *, on_found: Callable[[FoundManifest], None]) -> int:
    """Make the archive's rows from the manifests of the target; return how many files got rows or better ones.

    What the store knows already stays unless the manifest knows more, or lies elsewhere than the store says; nothing is
    removed. A file that does not lie
    beside its manifest with its size gets no row, and `on_found` is told. Raises `PlaceError` and `StoreError`.
    """
    restored = 0
    waiting: list[Manifest] = []
    async for one in find_manifests(place):
        found = await _without_missing(place, one)
        on_found(found)
        if found.manifest is not None:
            waiting.append(structs.replace(found.manifest, location=place.location(found.manifest.folder)))
        if len(waiting) == _AT_ONCE:
            restored += await restore_archive(store, waiting)
            waiting.clear()
    return restored + (await restore_archive(store, waiting) if waiting else 0)


async def _without_missing(place: Place, found: FoundManifest) -> FoundManifest:
    """Return a manifest without the archived files that are not there: nothing would fetch them again."""
    if found.manifest is None:
        return found
    missing = {
        file.name
        for file in found.manifest.files
        if file.outcome == "archived" and await place.size_of(f"{found.manifest.folder}/{file.name}") != file.size
    }
    if not missing:
        return found
    files = tuple(file for file in found.manifest.files if file.name not in missing)
    problem = f"{len(missing)} of its files are not there, or have other sizes, such as {min(missing)}"
    return FoundManifest(key=found.key, manifest=structs.replace(found.manifest, files=files), problem=problem)
