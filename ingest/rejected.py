"""Refused callbacks that a mended key would let in: one file per data folder, written while requests flow.

The sender gives a refused callback up after six tries. If its key was right and ours was wrong, a class would be lost:
so what came is kept for a day, the Sign in it included, for that is what is checked once the key is mended.

It holds signatures that may still be good. So it has mode 0600 in a folder of mode 0700, what is removed is
overwritten, and there is no write-ahead log in which it would live on.

A flood of forged callbacks costs the same as before, but for a look at a dictionary: what is written is a sample of it.
"""

import asyncio
import errno
import hashlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import structlog
from msgspec import Struct
from prometheus_client import Counter

from ingest.connections import Place, crowded_out
from ingest.refusals import Refusal
from telemetry import metrics

_log = structlog.get_logger()

#: What other keys, or another TIW_ALLOW_UNSIGNED, could make authentic. Not the other reasons: no key gives a Sign that
#: is not 32 hexadecimal digits, and who arrived after the ExpireTime arrived late under any key.
MENDABLE = frozenset({Refusal.UNKNOWN_APP, Refusal.MISSING_SIGN, Refusal.WRONG_SIGN})

#: All of them together, of all processes that share a folder.
MAX_KEPT = 1000
MAX_KEPT_BYTES = 16 * 1024 * 1024
MAX_AGE_S = 86_400

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
_PLACES = (
    "SELECT id, received_at_us, CASE reason WHEN ? THEN NULL ELSE sdk_app_id END, tries, length(body) FROM rejected"
)
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
        if not path.exists():
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
        places = map(Place._make, connection.execute(_PLACES, (Refusal.UNKNOWN_APP.label,)).fetchall())
        gone = crowded_out(places, limit=MAX_KEPT, limit_bytes=MAX_KEPT_BYTES)
        connection.executemany("DELETE FROM rejected WHERE id = ?", [(id_,) for id_ in gone])


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

#: Of more in that time, a sample is kept: of applications that are configured, and of those that are not.
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
        self._crowded_out = metrics.REJECTED_NOT_KEPT.labels(reason="crowded")
        self._lost_to_disk = metrics.REJECTED_NOT_KEPT.labels(reason="disk")
        self._samples = {True: Sample(self._crowded_out), False: Sample(self._crowded_out)}
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._logged_at_s = -LOG_INTERVAL_S

    def note(self, body: bytes, refusal: Refusal, *, sdk_app_id: int | None, received_at_us: int) -> None:
        """Keep a callback that was just refused, if another key could let it in. Returns at once."""
        if sdk_app_id is None or not is_mendable(refusal, sdk_app_id, len(body)):
            return
        rejected = Rejected(received_at_us=received_at_us, reason=refusal.label, sdk_app_id=sdk_app_id, body=body)
        # Whoever invents applications is no competition for those that there are.
        self._samples[refusal is not Refusal.UNKNOWN_APP].add(rejected)
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
        if self._writing is None and any(self._samples.values()):
            self._write()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=deadline_s - time.monotonic())

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep)
        if self._timer is None and self._writing is None:
            self._write()

    def _write(self) -> None:
        self._timer = None
        batch = [rejected for sample in self._samples.values() for rejected in sample.take()]
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
        if self._sweeper is not None and any(self._samples.values()):
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self._write)


class Sample:
    """What waits to be written: each body once, and of too many each with the same chance to be among them.

    `crowded_out` counts those that are not.
    """

    def __init__(self, crowded_out: Counter) -> None:
        self._crowded_out = crowded_out
        self._waiting: dict[bytes, Rejected] = {}
        self._size_bytes = 0
        self._seen = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, rejected: Rejected) -> None:
        """Put one in, and another one out if there is no room for both."""
        before = self._waiting.get(rejected.body)
        if before is not None:
            self._waiting[rejected.body] = Rejected(
                received_at_us=before.received_at_us,
                reason=rejected.reason,
                sdk_app_id=rejected.sdk_app_id,
                body=rejected.body,
                tries=before.tries + 1,
            )
            return
        self._seen += 1
        if len(self._waiting) >= MAX_WAITING:
            place = random.randrange(self._seen)  # noqa: S311 - a sample, no secret
            self._crowded_out.inc()
            if place >= MAX_WAITING:
                return
            self._drop(list(self._waiting)[place])
        self._waiting[rejected.body] = rejected
        self._size_bytes += len(rejected.body)
        while self._size_bytes > MAX_WAITING_BYTES:
            # The largest: a few of them would shut out all others.
            self._drop(max(self._waiting, key=len))
            self._crowded_out.inc()

    def take(self) -> list[Rejected]:
        """Return what waits, and begin anew."""
        taken = list(self._waiting.values())
        self._waiting = {}
        self._size_bytes = self._seen = 0
        return taken

    def _drop(self, body: bytes) -> None:
        del self._waiting[body]
        self._size_bytes -= len(body)


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
