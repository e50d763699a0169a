"""The file of rejected callbacks: one per data folder, which ingest processes and commands use beside each other.

It holds signatures that may still be good. So it has mode 0600 in a folder of mode 0700, what is removed is
overwritten, and there is no write-ahead log in which it would live on.
"""

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ingest.crowding import Place, crowded_out
from ingest.refusals import Refusal
from ingest.rejected import MAX_AGE_S, MAX_KEPT, MAX_KEPT_BYTES, KeptRejected, Rejected

FILE_NAME = "rejected.db"

#: How long others may have the file locked; each needs some milliseconds.
LOCK_TIMEOUT_S = 5.0

#: What the disk has to have left: the last of it is for callbacks that are authentic.
MIN_FREE_BYTES = 128 * 1024 * 1024

#: A belt: SQLite itself refuses to let the file grow beyond.
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
