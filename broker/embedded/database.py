"""The embedded transport's folder and file: locked, opened, and who holds what in it.

The kernel releases a lock with the process, whatever ended it, so nobody needs heartbeats or time-outs.
https://man7.org/linux/man-pages/man2/flock.2.html
"""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.api import BrokerError

DATABASE_NAME = "transport.db"

#: Opening is a matter of milliseconds, or of seconds if a large file is checked first.
OPENING_TIMEOUT_S = 30.0
_LOCK_POLL_S = 0.005

_MOUNTS = Path("/proc/mounts")

#: WAL needs shared memory between all processes, which no network file system has:
#: https://www.sqlite.org/wal.html#overview
_NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs"}
    | {"lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)


def prepare_folder(folder: Path) -> None:
    """Make `folder` (mode 0700) if it is missing. Raises `BrokerError` if it cannot be made or is on a network."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"cannot make the folder {folder}: {error.strerror}; choose another TIW_DATA_DIR") from error
    kind = network_file_system(folder)
    if kind is not None:
        raise BrokerError(f"{folder} is on a network file system ({kind}); choose a TIW_DATA_DIR on a local disk")


def network_file_system(folder: Path) -> str | None:
    """Return the type of the network file system that `folder` is on; None if it is on none, or nobody can tell."""
    kind = file_system(folder, _mounts())
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def file_system(folder: Path, mounts: str) -> str:
    """Return the type of the file system that `folder` is on, read from `mounts` as in proc(5); empty if unknown."""
    place = folder.resolve()
    longest, kind = -1, ""
    for line in mounts.splitlines():
        _, mount_point, mounted_kind, *_ = line.split(" ")
        path = mount_point.encode().decode("unicode_escape")  # a space is \040
        # The last line of a mount point wins: it is mounted over the earlier ones.
        if place.is_relative_to(path) and len(path) >= longest:
            longest, kind = len(path), mounted_kind
    return kind


def free_bytes(folder: Path) -> int:
    """Return how much this user may still write to the disk of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Keep every other process from opening the file in `folder` meanwhile. Raises `BrokerError` after 30 s.

    The lock is on the folder itself: no file is left behind.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        deadline_s = time.monotonic() + OPENING_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise BrokerError(
                        f"another process has been opening {folder} for {OPENING_TIMEOUT_S:g} s; end it"
                    ) from error
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""


_PREFIX = "owner-"
_SUFFIX = ".lock"


def bell_path(folder: Path, name: str) -> Path:
    """Return the place of the doorbell of the owner of that name."""
    return folder / f"{_PREFIX}{name}.bell"


#: The descriptors by which others see that the owners of this process live.
_held: set[int] = set()


def _hold_nothing() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


# A process that a handler forked has a share in the lock: as long as it lived, the owner would seem to live.
os.register_at_fork(after_in_child=_hold_nothing)


def close_in_forks(descriptor: int) -> None:
    """Close a descriptor in every process that is forked from this one, until `close_now`."""
    _held.add(descriptor)


def close_now(descriptor: int) -> None:
    """Close a descriptor that was given to `close_in_forks`."""
    _held.discard(descriptor)
    os.close(descriptor)


class Owner:
    """A transport's own name and lock, and its view of the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        self.name = ""

    def take(self) -> bool:
        """Become an owner; sweep away the files of the dead. Say whether there is another living one."""
        others = [self.is_alive(_name(path)) for path in self._folder.glob(f"{_PREFIX}*{_SUFFIX}")]
        while self._descriptor is None:
            self._descriptor = self._try_new_name()
        return any(others)

    def leave(self) -> None:
        """Stop being an owner. What is still claimed under this name returns to its queues."""
        if self._descriptor is not None:
            self._path(self.name).unlink(missing_ok=True)
            close_now(self._descriptor)
            self._descriptor = None

    def is_alive(self, name: str) -> bool:
        """Say whether the owner of that name lives. The files of a dead one are removed."""
        if name == self.name and self._descriptor is not None:
            return True
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:  # out of descriptors, no access: while nobody can tell, it keeps what it has
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock goes last: what is left beside it is found by it.
            bell_path(self._folder, name).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _try_new_name(self) -> int | None:
        self.name = secrets.token_hex(8)
        path = self._path(self.name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have seen the file before it was locked, and removed it as that of a dead owner.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                close_in_forks(descriptor)
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{_PREFIX}{name}{_SUFFIX}"


def _name(path: Path) -> str:
    return path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)


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
