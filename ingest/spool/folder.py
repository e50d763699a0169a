"""The spool's folder: one file per process at a time, each locked by its owner for as long as that lives.

The kernel lets go of a lock with the process, whatever ended it, so a file that can be locked has no owner.
https://man7.org/linux/man-pages/man2/flock.2.html
"""

import errno
import fcntl
import os
import re
import secrets
from pathlib import Path

from broker.embedded_folder import network_file_system
from ingest.spool.errors import SpoolError
from ingest.spool.frames import MARKER_BYTES

#: Files of callbacks that wait, of those that were set aside, and of those that were drained but held damage.
WAITING = "spool"
SET_ASIDE = "set-aside"
DAMAGED = "damaged"

_NAME = re.compile(rf"([0-9a-f]{{{2 * MARKER_BYTES}}})\.({WAITING}|{SET_ASIDE}|{DAMAGED})")

#: What no other user, place or configuration is to blame for, and what may pass by itself.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})


def prepare(folder: Path) -> None:
    """Make `folder` (mode 0700) if it is missing. Raises `SpoolError` if it cannot be made or is on a network.

    A disk that is full or fails is not an error here: the node runs without its spool until it is well again.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _PASSING:
            return
        raise SpoolError(f"cannot make the folder {folder}: {error.strerror}; set TIW_DATA_DIR") from error
    kind = network_file_system(folder)
    if kind is not None:
        raise SpoolError(f"{folder} is on a network file system ({kind}): set TIW_DATA_DIR to a folder on a local disk")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SpoolError(f"{folder} cannot be written: give this user access to it, or set TIW_DATA_DIR")


def files(folder: Path, kind: str) -> list[Path]:
    """Return the files of a kind, oldest first. Empty if the folder is not there."""
    try:
        found = [entry for entry in os.scandir(folder) if _kind_of(entry.name) == kind]
        aged = sorted((entry.stat().st_mtime_ns, entry.path) for entry in found)
    except OSError:
        return []
    return [Path(path) for _, path in aged]


def marker_of(path: Path) -> bytes:
    """Return the marker that a file's name holds."""
    return bytes.fromhex(path.name.partition(".")[0])


def create(folder: Path, kind: str) -> tuple[Path, int]:
    """Make a file with a new name and lock it; return its path and descriptor, open for appending. Raises OSError."""
    while True:
        path = folder / f"{secrets.token_hex(MARKER_BYTES)}.{kind}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Another process may have taken it for a file without owner in between; it is empty, and soon gone.
            if _take(descriptor, path):
                sync(folder)
                return path, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def adopt(path: Path) -> int | None:
    """Lock a file that has no owner and return its descriptor, open for appending; None if it has one. Raises OSError.

    None also for one that is gone, or is not the same any more once it is locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if _take(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def sync(folder: Path) -> None:
    """Make the names in `folder` durable: a file whose name is lost is lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Return how much this user may still write to the folder's disk. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _take(descriptor: int, path: Path) -> bool:
    """Lock an open file; False if somebody else has, or `path` is not this file any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _kind_of(name: str) -> str | None:
    match = _NAME.fullmatch(name)
    return match[2] if match else None
