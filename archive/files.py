"""One file's way: fetched into its part, proved whole, placed, and only then let go of.

Each step is remembered in the file's row before the next one begins, and each may be repeated: whoever takes over after
a crash goes on where the last one was.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog
from msgspec import Struct, structs

from archive.addresses import FetchError, ForbiddenAddressError
from archive.fetching import Fetched, Fetcher, FileHeaders, NotThereError, OtherSizeError, TooLargeError, Wanted
from archive.part_file import DiskFullError
from archive.places import NotStagedError, Place, PlaceError
from archive.staging import Staging
from schemas import FileOutcome
from store import (
    ArchiveFile,
    Step,
    Store,
    StoreError,
    archived_files,
    extend_leases,
    finish_file,
    has_waiting_files,
    note_file,
    postpone_file,
)
from telemetry import metrics

#: A lease is renewed three times before it ends, however long a file takes.
LEASE_S: Final = 60.0

#: The first pause after a failure, doubled each time up to the last.
FIRST_PAUSE_S: Final = 10.0
LAST_PAUSE_S: Final = 600.0

#: What is not there is looked for until so long after it should have been deleted: clocks differ, and the vendor says
#: neither when the three days begin nor that it is punctual.
LOST_AFTER_S: Final = 3600.0

#: What fails otherwise is given up so long after it should have been deleted: nothing is tried for ever.
GIVEN_UP_AFTER_S: Final = 86_400.0

#: A file is there so soon after it was planned, whatever its source says of its age.
_THERE_WITHIN_S: Final = 86_400.0

#: So long a file may be fetched while others wait, and so long it waits then. What came of it stays.
TURN_S: Final = 600.0
_AFTER_TURN_S: Final = 60.0

#: After so many attempts the size that is there is taken instead of the one that was announced, if the attempt before
#: has seen the same one.
_SIZE_TRIES: Final = 3

#: How often progress is written into the row.
_PROGRESS_EVERY_S: Final = 2.0

_log = structlog.get_logger()


class FileConfig(Struct, frozen=True, kw_only=True):
    """`kept_s`: for how long the vendor keeps a file after its Last-Modified. Pauses as the constants above.

    A file that is fetched for `turn_s` lets others go first that wait: a few that never end, at
    just the least speed, would keep all others from being fetched.
    """

    kept_s: float = 3 * 86_400.0
    first_pause_s: float = FIRST_PAUSE_S
    last_pause_s: float = LAST_PAUSE_S
    lost_after_s: float = LOST_AFTER_S
    turn_s: float = TURN_S


class FileWork:
    """Works on files that were claimed, one call for each. `now_s` is the time in Unix seconds."""

    def __init__(
        self,
        config: FileConfig,
        *,
        store: Store,
        staging: Staging,
        fetcher: Fetcher,
        place: Callable[[], Place],
        lease_holder: str,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._store = store
        self._staging = staging
        self._fetcher = fetcher
        self._place = place
        self._lease_holder = lease_holder
        self._now_s = now_s
        self._transfers: set[_Transfer] = set()
        self._is_stopping = False

    async def do(self, file: ArchiveFile) -> bool:
        """Bring a claimed file as far as it goes now; say whether it is archived.

        What fails is written into the row, with the time of the next try. Raises `StoreError` alone: then the lease
        ends by itself and somebody goes on.
        """
        transfer = _Transfer()
        self._transfers.add(transfer)
        if self._is_stopping:
            transfer.end(_StoppedError())
        extending = asyncio.create_task(self._extend_lease(file, transfer), name="lease of a file")
        try:
            return await self._go_on(file, transfer)
        finally:
            self._transfers.discard(transfer)
            extending.cancel()
            await asyncio.wait({extending})

    def stop(self) -> None:
        """End all transfers: the calls of `do` return soon, and whoever works next goes on where they are."""
        self._is_stopping = True
        for transfer in self._transfers:
            transfer.end(_StoppedError())

    async def _go_on(self, file: ArchiveFile, transfer: "_Transfer") -> bool:
        try:
            if not file.is_staged:
                file = await self._fetch(file, transfer)
            return await self._put(file, transfer)
        except _LeaseLostError:
            _log.warning("file_lease_lost", **_names(file))
        except _StoppedError:
            # It was no try: who stops often must not make the pauses after a failure longer.
            await postpone_file(
                self._store, file.key, lease_holder=self._lease_holder, after_s=0.0, attempts=file.attempts - 1
            )
        except _TurnOverError:
            await postpone_file(
                self._store,
                file.key,
                lease_holder=self._lease_holder,
                after_s=_AFTER_TURN_S,
                attempts=file.attempts - 1,
            )
        except FetchError as error:
            await self._not_had(file, error)
        except PlaceError as error:
            await self._postpone(file, str(error), "placing")
        return False

    async def _extend_lease(self, file: ArchiveFile, transfer: "_Transfer") -> None:
        """Keep the lease; end the transfer if it is lost, as somebody else goes on then."""
        while True:
            await asyncio.sleep(LEASE_S / 4)
            try:
                held = await extend_leases(
                    self._store, archived_files, [file.key], lease_holder=self._lease_holder, lease_s=LEASE_S
                )
            except StoreError:
                continue
            if not held:
                transfer.end(_LeaseLostError())
                return

    async def _fetch(self, file: ArchiveFile, transfer: "_Transfer") -> ArchiveFile:
        """Fetch the file into its part and prove it whole; return the row as it is then."""
        part = self._staging.part(file.sdk_app_id, file.task_id, file.file_key)
        progress = _Progress(file.fetched_bytes or 0)

        async def on_headers(headers: FileHeaders) -> None:
            values: dict[str, Any] = {"etag": headers.etag, "staged_on": self._staging.identity}
            if headers.last_modified_at is not None:
                values["last_modified_at"] = round(headers.last_modified_at)
                values["deadline_at_us"] = self._deadline_us(file, headers.last_modified_at)
            await self._note(file, **values)

        fetched = await self._reporting(
            file,
            progress,
            transfer,
            self._fetcher.fetch(
                Wanted(
                    url=file.url,
                    is_vendors_address=file.address_from == "vendor",
                    announced_size=file.announced_size,
                    accept_other_size=file.attempts > _SIZE_TRIES,
                    seen_size=file.size,
                    etag=file.etag,
                    last_modified_at=file.last_modified_at,
                    part=part,
                ),
                on_progress=progress.set,
                on_headers=on_headers,
            ),
        )
        metrics.ARCHIVE_FETCHED_BYTES.inc(fetched.size)
        values = self._proved(fetched)
        await self._note(file, fetched_from=(file.address_from, file.url), **values)
        return structs.replace(file, **values)

    def _deadline_us(self, file: ArchiveFile, modified_at: float) -> int:
        """Return when the vendor deletes a file, within bounds: a source may say anything, and this orders the work."""
        latest_us = file.planned_at_us + round((self._config.kept_s + _THERE_WITHIN_S) * 1_000_000)
        said_us = round((modified_at + self._config.kept_s) * 1_000_000)
        return min(max(said_us, file.planned_at_us), latest_us)

    def _proved(self, fetched: Fetched) -> dict[str, Any]:
        return {
            "is_staged": True,
            "staged_on": self._staging.identity,
            "size": fetched.size,
            "fetched_bytes": fetched.size,
            "sha256": fetched.sha256,
            "crc64": fetched.crc64,
            "checked": list(fetched.checked),
            "etag": fetched.etag,
            "reason": None,
            "failing_since_us": None,
            "failing_at": None,
        }

    async def _put(self, file: ArchiveFile, transfer: "_Transfer") -> bool:
        """Place a staged file, and let go of its part once the row says that it is there."""
        place = self._place()
        part = self._staging.part(file.sdk_app_id, file.task_id, file.file_key)
        progress = _Progress(0)
        try:
            location = await transfer.run(
                place.put_file(
                    part,
                    f"{file.folder}/{file.name}",
                    size=file.size or 0,
                    sha256=file.sha256 or "",
                    upload_id=file.upload_id,
                    on_upload_id=lambda upload_id: self._note(file, upload_id=upload_id),
                    on_progress=progress.set,
                )
            )
        except NotStagedError as error:
            # Somebody cleared the folder: once more from the start.
            await asyncio.to_thread(part.unlink, missing_ok=True)
            await self._postpone(
                file, str(error), "fetching", after_s=0.0, is_staged=False, staged_on=None, fetched_bytes=0, etag=None
            )
            return False
        is_ours = await finish_file(
            self._store,
            file.key,
            lease_holder=self._lease_holder,
            outcome="archived",
            fetched_from=(file.address_from, file.url),
            location=location,
            archived_at_us=round(self._now_s() * 1_000_000),
        )
        if is_ours:
            await asyncio.to_thread(part.unlink, missing_ok=True)
            metrics.ARCHIVED_FILES.labels("archived").inc()
            _log.info("file_archived", **_names(file), bytes=file.size, sha256=file.sha256)
        return is_ours

    async def _reporting(
        self, file: ArchiveFile, progress: "_Progress", transfer: "_Transfer", work: Coroutine[Any, Any, Fetched]
    ) -> Fetched:
        """Fetch, and write now and then into the row how far that is."""
        turn_ends_s = time.monotonic() + self._config.turn_s

        async def report() -> None:
            while True:
                await asyncio.sleep(_PROGRESS_EVERY_S)
                if time.monotonic() > turn_ends_s:
                    await self._let_others_go(transfer)
                if progress.take():
                    try:
                        await note_file(
                            self._store, file.key, lease_holder=self._lease_holder, fetched_bytes=progress.size
                        )
                    except StoreError:
                        continue

        reporting = asyncio.create_task(report(), name="progress of a file")
        try:
            return await transfer.run(work)
        finally:
            reporting.cancel()
            await asyncio.wait({reporting})

    async def _let_others_go(self, transfer: "_Transfer") -> None:
        """End a transfer if others wait."""
        try:
            if await has_waiting_files(self._store, staged_on=self._staging.identity):
                transfer.end(_TurnOverError())
        except StoreError:
            return

    async def _note(self, file: ArchiveFile, **values: Any) -> None:
        await note_file(self._store, file.key, lease_holder=self._lease_holder, **values)

    async def _not_had(self, file: ArchiveFile, error: FetchError) -> None:
        match error:
            case ForbiddenAddressError():
                await self._refuse(file, f"its address may not be fetched from: {error}")
            case TooLargeError():
                await self._refuse(file, str(error))
            case NotThereError():
                await self._not_there(file, error)
            case DiskFullError():
                await self._postpone(file, str(error), "fetching", after_s=self._config.last_pause_s / 10)
            case OtherSizeError():
                await self._postpone(file, str(error), "fetching", size=error.size)
            case _ if self._is_late(file, GIVEN_UP_AFTER_S):
                await self._lose(file, f"it could not be had before it was to be deleted: {error}")
            case _:
                await self._postpone(file, str(error), "fetching", after_s=error.again_after_s, size=None)

    async def _not_there(self, file: ArchiveFile, error: NotThereError) -> None:
        """Soon after the end of a recording its files are not there yet; long after they were deleted they are lost."""
        if self._is_late(file, self._config.lost_after_s):
            await self._lose(file, f"the vendor deleted it before it could be had: {error}")
        else:
            await self._postpone(file, str(error), "fetching", not_found=file.not_found + 1, size=None)

    def _is_late(self, file: ArchiveFile, seconds: float) -> bool:
        return self._now_s() > file.deadline_at_us / 1_000_000 + seconds

    async def _lose(self, file: ArchiveFile, reason: str) -> None:
        await self._end(file, "lost", reason)
        _log.error("file_lost", **_names(file), reason=reason)

    async def _refuse(self, file: ArchiveFile, reason: str) -> None:
        await self._end(file, "refused", reason)
        _log.error("file_refused", **_names(file), reason=reason)

    async def _end(self, file: ArchiveFile, outcome: FileOutcome, reason: str) -> None:
        part = self._staging.part(file.sdk_app_id, file.task_id, file.file_key)
        await finish_file(self._store, file.key, lease_holder=self._lease_holder, outcome=outcome, reason=reason)
        await asyncio.to_thread(part.unlink, missing_ok=True)
        metrics.ARCHIVED_FILES.labels(outcome).inc()

    async def _postpone(
        self, file: ArchiveFile, reason: str, failing_at: Step, *, after_s: float | None = None, **values: Any
    ) -> None:
        if after_s is None:
            doubled_s = self._config.first_pause_s * 2.0 ** min(file.attempts - 1, 16)
            after_s = min(doubled_s, self._config.last_pause_s)
        metrics.ARCHIVE_FAILURES.labels(failing_at).inc()
        _log.warning(
            "file_postponed",
            **_names(file),
            reason=reason,
            failing_at=failing_at,
            again_in_s=round(after_s, 1),
            deleted_at=datetime.fromtimestamp(file.deadline_at_us / 1_000_000, UTC).isoformat(timespec="seconds"),
        )
        await postpone_file(
            self._store,
            file.key,
            lease_holder=self._lease_holder,
            after_s=after_s,
            reason=reason,
            failing_at=failing_at,
            **values,
        )


class _LeaseLostError(Exception):
    pass


class _StoppedError(Exception):
    pass


class _TurnOverError(Exception):
    pass


T = TypeVar("T")


class _Transfer:
    """What moves the bytes of one file. It can be ended without cancelling what the store is asked meanwhile."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._error: Exception | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, or raise what `end` was called with."""
        if self._error is not None:
            work.close()
            raise self._error
        task = asyncio.create_task(work, name="transfer of a file")
        self._task = task
        try:
            return await task
        except asyncio.CancelledError:
            if (error := self._ended_with()) is None:
                raise
            raise error from None

    def _ended_with(self) -> Exception | None:
        """Return what this was ended with, unless it is who waits for it that is cancelled."""
        waiting = asyncio.current_task()
        return None if waiting is None or waiting.cancelling() else self._error

    def end(self, error: Exception) -> None:
        """Have `run` raise `error`."""
        self._error = error
        if self._task is not None:
            self._task.cancel()


class _Progress:
    """How many bytes are there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = size

    def set(self, size: int) -> None:
        self.size = size

    def take(self) -> bool:
        """Say whether it has changed since it was last taken."""
        is_news, self._taken = self.size != self._taken, self.size
        return is_news


def _names(file: ArchiveFile) -> Mapping[str, Any]:
    return {"sdk_app_id": file.sdk_app_id, "task_id": file.task_id, "file": file.name}
