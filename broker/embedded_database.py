"""The embedded transport's file: its schema, how it is opened, and what to do about SQLite's errors."""

import contextlib
import os
import sqlite3
from pathlib import Path

from broker.errors import BrokerError

SCHEMA_VERSION = 1

#: The first that has RETURNING: https://www.sqlite.org/lang_returning.html
_OLDEST_SQLITE = (3, 35)

#: How long other processes may keep the file locked before an operation fails.
LOCK_TIMEOUT_S = 2.0

#: After a burst the WAL shrinks to this.
_WAL_KEPT_BYTES = 16 * 1024 * 1024

#: Message ids are never used twice (AUTOINCREMENT): a late ack must not take a newer message with it.
#: A message is ready if `claimed_by` is null and `visible_at_us` is 0; a retry has the time in `visible_at_us`.
_SCHEMA = (
    "CREATE TABLE queues (name TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE bindings (routing_key TEXT, queue TEXT, PRIMARY KEY (routing_key, queue)) WITHOUT ROWID",
    "CREATE TABLE subscriptions (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, queue TEXT NOT NULL)",
    """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue TEXT NOT NULL,
        visible_at_us INTEGER NOT NULL,
        claimed_by INTEGER,
        deliveries INTEGER NOT NULL DEFAULT 0,
        message BLOB NOT NULL
    )
    """,
    "CREATE INDEX ready ON messages (queue, id) WHERE claimed_by IS NULL AND visible_at_us = 0",
    "CREATE INDEX waiting ON messages (visible_at_us) WHERE visible_at_us > 0",
    "CREATE INDEX claimed ON messages (claimed_by, queue) WHERE claimed_by IS NOT NULL",
)

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ACCESS = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})
_TROUBLES = _DAMAGED | _NO_ACCESS | {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def open_database(path: Path, *, check: bool) -> sqlite3.Connection:
    """Open the file at `path`, made with mode 0600 if it is missing; with `check`, look for damage first.

    The connection is in autocommit mode, fsyncs every commit and does not wait for locks. Raises `BrokerError` that
    says what to do if the file is damaged, not a transport's, or written by a newer version.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise BrokerError(f"SQLite {sqlite3.sqlite_version} is too old: this needs 3.35 or newer, or use TIW_AMQP_URL")
    try:
        # Not even opened if it is there: closing it would drop the locks that this process holds on it elsewhere:
        # https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_TIMEOUT_S)
    except OSError as error:
        raise BrokerError(f"cannot open {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise BrokerError(explain(error, path)) from error
    try:
        _prepare(connection, path, check=check)
    except sqlite3.Error as error:
        connection.close()
        raise BrokerError(explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def error_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code of an error; 0 if Python raised it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_trouble(error: BaseException) -> bool:
    """Say whether an error is the file's or the disk's, not that of one statement."""
    return isinstance(error, sqlite3.Error) and error_code(error) in _TROUBLES


def is_full(error: BaseException) -> bool:
    """Say whether the disk was full."""
    return isinstance(error, sqlite3.Error) and error_code(error) == sqlite3.SQLITE_FULL


def explain(error: BaseException, path: Path) -> str:
    """Say in one sentence what is wrong with the file at `path` and what to do about it."""
    code = error_code(error) if isinstance(error, sqlite3.Error) else 0
    if code in _DAMAGED:
        return _damaged(path, str(error))
    if code in _NO_ACCESS:
        return f"cannot write {path} ({error}); give this user access to it and to its folder"
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} was locked by another process for too long; look for one that hangs or is stopped"
    if code == sqlite3.SQLITE_FULL:
        return f"no space left for {path}; free some on its disk"
    if code == sqlite3.SQLITE_IOERR:
        return f"cannot write or read {path} ({error}); look at its disk's free space and health"
    return f"{path}: {error}"


def _prepare(connection: sqlite3.Connection, path: Path, *, check: bool) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise BrokerError(
            f"{path} was written by a newer version (its schema is {version}, this version knows {SCHEMA_VERSION}); "
            "run that version, or let it empty its queues and move the file away"
        )
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
        raise BrokerError(f"{path} is not the file of a transport; move it away, or choose another TIW_DATA_DIR")
    # Has to come before the file's first page is written.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise BrokerError(f"SQLite cannot keep a write-ahead log beside {path}; choose a TIW_DATA_DIR on a local disk")
    for pragma in (
        "synchronous = FULL",
        "fullfsync = ON",  # on macOS fsync alone does not reach the disk
        "checkpoint_fullfsync = ON",
        "secure_delete = OFF",
        f"journal_size_limit = {_WAL_KEPT_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    elif check:
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise BrokerError(_damaged(path, finding))
    # Whoever begins a transaction waits by himself: SQLite's own waiting grows to 100 ms between two looks.
    connection.execute("PRAGMA busy_timeout = 0")


def _damaged(path: Path, finding: str) -> str:
    summary = " ".join(finding.split())
    return (
        f"{path} is damaged ({summary}); stop all processes that use it, move it and its -wal and -shm files away or "
        "restore them from a backup, then start again; `sqlite3 FILE .recover` saves what is readable"
    )
