"""Refused callbacks that a mended key would let in: one file per data folder, written while requests flow.

The sender gives a refused callback up after six tries. If its key was right and ours was wrong, a class would be lost:
so what came is kept for a day, the Sign in it included, for that is what is checked once the key is mended.

Whoever knows the address can send rubbish, so a flood must push out itself and nothing else. What came in the same ten
minutes for the same application has a fair share of the file; all applications that are not configured are one, as
anybody can invent any number of them. Within a share, what came again stays rather than what came once, for the real
sender repeats, then small bodies rather than large ones, then the newest.

The file holds signatures that may still be good. So it has mode 0600 in a folder of mode 0700, what is removed is
overwritten, and there is no write-ahead log in which it would live on.
"""

import asyncio
import errno
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import structlog
from msgspec import Struct

from ingest.refusals import MENDABLE, Refusal
from telemetry import metrics

_log = structlog.get_logger()

#: All of them together, of all processes that share a folder.
MAX_KEPT = 1000
MAX_KEPT_BYTES = 16 * 1024 * 1024
MAX_AGE_S = 86_400

#: What came for one application in this time has one share.
SLOT_US = 600 * 1_000_000

#: The vendor's bodies are smaller.
SMALL_BYTES = 16 * 1024

#: A larger body is not kept. The vendor's are some kilobytes.
MAX_BODY_BYTES = 1024 * 1024


class Rejected(Struct, frozen=True, kw_only=True):
    """A callback that was refused. `body` is what came, Sign and ExpireTime included: for no log and no listing.

    `received_at_us` is its first arrival, in microseconds since the Unix epoch; `reason` one of the labels of
    `MENDABLE`; `tries` counts how often the same body came.
    """

    received_at_us: int
    reason: str
    sdk_app_id: int
    body: bytes
    tries: int = 1


class KeptRejected(Struct, frozen=True, kw_only=True):
    """A `Rejected` in its file. `id` is never used twice in one file."""

    id: int
    rejected: Rejected


def is_mendable(refusal: Refusal, sdk_app_id: int | None, size_bytes: int) -> bool:
    """Say whether a refused callback is worth keeping; `sdk_app_id` is None if it has none that can be read."""
    return refusal in MENDABLE and sdk_app_id is not None and size_bytes <= MAX_BODY_BYTES


FILE_NAME = "rejected.db"

#: How long others may have the file locked; each needs some milliseconds.
LOCK_TIMEOUT_S = 5.0

#: What the disk has to have left: the last of it is for callbacks that are authentic.
MIN_FREE_BYTES = 128 * 1024 * 1024

#: SQLite itself refuses to let the file grow beyond.
_PAGE_BYTES = 4096
_MAX_PAGES = 2 * MAX_KEPT_BYTES // _PAGE_BYTES

_SCHEMA_VERSION = 1
_SCHEMA = """
    CREATE TABLE rejected (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        received_at_us INTEGER NOT NULL,
        reason TEXT NOT NULL,
        sdk_app_id INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        body BLOB NOT NULL
    )
"""
_INSERT = """
    INSERT INTO rejected (digest, received_at_us, reason, sdk_app_id, tries, body) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET
        tries = tries + excluded.tries,
        reason = excluded.reason,
        received_at_us = min(received_at_us, excluded.received_at_us)
"""
#: Those that go so that MAX_KEPT of MAX_KEPT_BYTES stay: the last of the largest shares.
_EVICT = """
    DELETE FROM rejected WHERE id IN (
        SELECT id FROM (
            SELECT id, row_number() OVER fair AS place, sum(size) OVER fair AS size_up_to_it FROM (
                SELECT id, length(body) AS size, received_at_us / :slot_us AS slot, row_number() OVER (
                    PARTITION BY CASE reason WHEN :unknown_app THEN NULL ELSE sdk_app_id END, received_at_us / :slot_us
                    ORDER BY tries = 1, length(body) > :small_bytes, received_at_us DESC, id DESC
                ) AS place_in_share
                FROM rejected
            ) WINDOW fair AS (ORDER BY place_in_share, slot DESC, id)
        ) WHERE place > :max_kept OR size_up_to_it > :max_kept_bytes
    )
"""
_UNUSABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class RejectedFileError(Exception):
    """Raised when the file cannot be used; its text names it and says what to do."""


def keep_rejected(folder: Path, rejected: Iterable[Rejected], *, now_us: int) -> None:
    """Add `rejected` to the file in `folder`, made if it is missing, then remove what is too old or too much.

    A body that is there already counts one more try. A file that is damaged is set aside, and a new one begun. Raises
    `RejectedFileError`, also if the disk is nearly full.
    """
    rows = [(_digest(one), one.received_at_us, one.reason, one.sdk_app_id, one.tries, one.body) for one in rejected]
    try:
        _write(folder, rows, now_us)
    except sqlite3.DatabaseError as error:
        if _code(error) not in _UNUSABLE:
            raise RejectedFileError(_explain(folder, error)) from error
        _set_aside(folder)
        with _explaining(folder):
            _write(folder, rows, now_us)
    except OSError as error:
        raise RejectedFileError(_explain(folder, error)) from error


def read_rejected(folder: Path, *, now_us: int) -> list[KeptRejected]:
    """Return what is kept in `folder`, newest first; nothing if there is no file. Raises `RejectedFileError`."""
    path = folder / FILE_NAME
    with _explaining(folder):
        try:
            path.stat()
        except FileNotFoundError:
            return []
        with _opened(path) as connection:
            found = connection.execute(
                "SELECT id, received_at_us, reason, sdk_app_id, tries, body FROM rejected WHERE received_at_us > ?"
                " ORDER BY received_at_us DESC, id DESC",
                (_oldest_us(now_us),),
            ).fetchall()
    return [
        KeptRejected(
            id=id_,
            rejected=Rejected(received_at_us=at_us, reason=reason, sdk_app_id=app, tries=tries, body=body),
        )
        for id_, at_us, reason, app, tries, body in found
    ]


def remove_rejected(folder: Path, kept: Iterable[KeptRejected]) -> None:
    """Remove these from the file in `folder`; those that are gone already are no error. Raises `RejectedFileError`."""
    # By the digest, too: the file may have been replaced since, and its ids begin anew.
    rows = [(one.id, _digest(one.rejected)) for one in kept]
    with _explaining(folder), _opened(folder / FILE_NAME) as connection:
        connection.executemany("DELETE FROM rejected WHERE id = ? AND digest = ?", rows)


def _write(folder: Path, rows: Sequence[tuple[object, ...]], now_us: int) -> None:
    path = folder / FILE_NAME
    _sweep_aside(path, now_us)
    if not rows and not path.exists():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = os.statvfs(folder)
    if rows and disk.f_bavail * disk.f_frsize < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _opened(path) as connection:
        connection.execute("DELETE FROM rejected WHERE received_at_us <= ?", (_oldest_us(now_us),))
        connection.executemany(_INSERT, rows)
        connection.execute(
            _EVICT,
            {
                "unknown_app": Refusal.UNKNOWN_APP.label,
                "slot_us": SLOT_US,
                "small_bytes": SMALL_BYTES,
                "max_kept": MAX_KEPT,
                "max_kept_bytes": MAX_KEPT_BYTES,
            },
        )


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the file in one transaction, which is committed unless the block raises.

    It is opened anew each time: whoever deletes or replaces the file meanwhile does no harm.
    """
    # mode=rw: it is made here alone, with its mode.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_TIMEOUT_S
    )
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA max_page_count = {_MAX_PAGES}")
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise RejectedFileError(f"{path} was written by a newer version: run that one, or move the file away")
        if version == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RejectedFileError(_explain(folder, error)) from error


def _explain(folder: Path, error: Exception) -> str:
    path = folder / FILE_NAME
    if _code(error) in _UNUSABLE:
        return f"{path} is damaged ({error}): move it away; ingest begins a new one"
    if _code(error) == sqlite3.SQLITE_BUSY:
        return f"{path} was locked by another process for {LOCK_TIMEOUT_S:g} s: look for one that hangs or is stopped"
    return f"{path} cannot be used ({error}): look at its disk's free space and at who may write there"


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 if it is none of its errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _set_aside(folder: Path) -> None:
    path = folder / FILE_NAME
    with suppress(FileNotFoundError):
        path.rename(_aside(path))
    # A journal belongs to its file: the new one must not be rolled back with it.
    path.with_name(f"{FILE_NAME}-journal").unlink(missing_ok=True)


def _sweep_aside(path: Path, now_us: int) -> None:
    """Remove a file that was set aside once what it holds is too old, too."""
    with suppress(FileNotFoundError):
        if _aside(path).stat().st_mtime < _oldest_us(now_us) / 1e6:
            _aside(path).unlink()


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _digest(rejected: Rejected) -> bytes:
    return hashlib.sha256(rejected.body).digest()


def _oldest_us(now_us: int) -> int:
    return now_us - MAX_AGE_S * 1_000_000


#: What was refused meanwhile is written together.
WRITE_INTERVAL_S = 1.0

#: More than this in that time is not kept: of applications that are configured, and of those that are not.
MAX_WAITING = 50
MAX_WAITING_BYTES = 2 * 1024 * 1024

#: What is too old goes, even if nothing new comes.
SWEEP_INTERVAL_S = 600.0

#: How long an end waits for the last write. A disk that hangs must not hold it up.
CLOSE_TIMEOUT_S = 1.0

#: A disk that refuses is logged this often.
LOG_INTERVAL_S = 60.0


class RejectedWriter:
    """Writes what `note` is given into `folder` while it is entered. Nothing it does raises or waits for a disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All time series from the start.
        self._too_many = metrics.REJECTED_NOT_KEPT.labels(reason="too_many")
        self._lost_to_disk = metrics.REJECTED_NOT_KEPT.labels(reason="disk")
        #: By whether the application is configured: who invents some is no competition for those that there are.
        self._waiting: dict[bool, dict[bytes, Rejected]] = {True: {}, False: {}}
        self._waiting_bytes = {True: 0, False: 0}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._logged_at_s = -LOG_INTERVAL_S

    def note(self, body: bytes, refusal: Refusal, *, sdk_app_id: int | None, received_at_us: int) -> None:
        """Keep a callback that was just refused, if another key could let it in. Returns at once."""
        if sdk_app_id is None or not is_mendable(refusal, sdk_app_id, len(body)):
            return
        is_configured = refusal is not Refusal.UNKNOWN_APP
        waiting = self._waiting[is_configured]
        before = waiting.get(body)
        if before is None:
            if len(waiting) >= MAX_WAITING or self._waiting_bytes[is_configured] + len(body) > MAX_WAITING_BYTES:
                self._too_many.inc()
                return
            self._waiting_bytes[is_configured] += len(body)
        waiting[body] = Rejected(
            received_at_us=received_at_us if before is None else before.received_at_us,
            reason=refusal.label,
            sdk_app_id=sdk_app_id,
            body=body,
            tries=1 if before is None else before.tries + 1,
        )
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self._write)

    async def __aenter__(self) -> Self:
        self._sweep()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._sweeper = None
        deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=CLOSE_TIMEOUT_S)
        if self._writing is None and any(self._waiting.values()):
            self._write()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=deadline_s - time.monotonic())

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep)
        if self._timer is None and self._writing is None:
            self._write()

    def _write(self) -> None:
        self._timer = None
        batch = [rejected for waiting in self._waiting.values() for rejected in waiting.values()]
        self._waiting = {True: {}, False: {}}
        self._waiting_bytes = {True: 0, False: 0}
        loop = asyncio.get_running_loop()
        self._writing = loop.create_future()
        # A thread of its own, and one that nobody waits for: those of the pool have callbacks to look at.
        threading.Thread(
            target=_keep, args=(self._folder, batch, loop, self._written), daemon=True, name="rejected"
        ).start()

    def _written(self, count: int, error: RejectedFileError | None) -> None:
        if self._writing is not None:
            self._writing.set_result(None)
            self._writing = None
        if error is None:
            metrics.REJECTED_KEPT.inc(count)
        else:
            self._lost_to_disk.inc(count)
            if time.monotonic() - self._logged_at_s >= LOG_INTERVAL_S:
                self._logged_at_s = time.monotonic()
                _log.error("rejected_not_kept", error=str(error))
        if self._sweeper is not None and any(self._waiting.values()):
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self._write)


def _keep(
    folder: Path,
    batch: Sequence[Rejected],
    loop: asyncio.AbstractEventLoop,
    written: Callable[[int, RejectedFileError | None], None],
) -> None:
    """Run in the thread."""
    error = None
    try:
        keep_rejected(folder, batch, now_us=time.time_ns() // 1000)
    except RejectedFileError as failure:
        error = failure
    try:
        loop.call_soon_threadsafe(written, len(batch), error)
    except RuntimeError:
        # The loop did not wait for a disk that hung: nobody is left to tell.
        return
