"""The spool's files: one per process at a time, locked by its owner for as long as that lives.

The kernel lets go of a lock with the process, whatever ended it, so a file that can be locked has no owner.
https://man7.org/linux/man-pages/man2/flock.2.html
"""

import errno
import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Self

import msgspec

from broker import network_file_system
from ingest.spool.format import MARKER_BYTES, Contents, Record, Refused, read_contents, render_record, render_refused


class SpoolError(Exception):
    """Raised when the spool cannot keep a callback, or cannot be used at all; the text says what to do."""


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


class SpoolFile:
    """A locked file that records are appended to. Every method blocks on the disk and raises OSError.

    `records` and `bytes` tell what waits in it and how large it is; `oldest_at_us` when the oldest of those callbacks
    was received, None if nothing waits.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.marker = marker_of(path)
        self._descriptor = descriptor
        self.bytes = os.fstat(descriptor).st_size
        self.records = 0
        self.oldest_at_us: int | None = None

    @classmethod
    def create(cls, folder: Path, kind: str) -> Self:
        """Make a new one in `folder`."""
        return cls(*create(folder, kind))

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Take over a file that has no owner; None if it has one, or is gone."""
        descriptor = adopt(path)
        return None if descriptor is None else cls(path, descriptor)

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still where its path says: what is written to a deleted one is lost with this process."""
        try:
            return self.path.stat().st_ino == os.fstat(self._descriptor).st_ino
        except (FileNotFoundError, NotADirectoryError):
            return False

    def append(self, frames: bytes) -> None:
        """Write frames and wait until the disk has them. If that fails, the file is as it was, or it is to be left.

        After a failed fsync nobody knows which pages the disk has: https://lwn.net/Articles/752063/. So a file that
        raised is not appended to again; what was in it before is not touched.
        """
        self._write(frames)
        os.fdatasync(self._descriptor)

    def mark(self, frames: bytes) -> None:
        """Write frames that may be lost in a crash: then something is done once more."""
        self._write(frames)

    def read(self) -> Contents:
        """Read all of it, and bring the counts up to date."""
        size_bytes = os.fstat(self._descriptor).st_size
        pieces = []
        offset = 0
        while offset < size_bytes and (piece := os.pread(self._descriptor, size_bytes - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        contents = read_contents(b"".join(pieces), self.marker)
        self.records = len(contents.pending)
        self.oldest_at_us = min((record.message.received_at_us for record in contents.pending), default=None)
        return contents

    def remove(self) -> None:
        """Delete the file and let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def keep_as_damaged(self) -> Path:
        """Rename the file, so that nobody drains it again and somebody can look at it; let go of it."""
        path = self.path.with_suffix(f".{DAMAGED}")
        self.path.rename(path)
        sync(path.parent)
        self.close()
        return path

    def close(self) -> None:
        """Let go of the file, as it is: it has no owner then."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def _write(self, frames: bytes) -> None:
        view = memoryview(frames)
        while view:
            written = os.write(self._descriptor, view)
            self.bytes += written
            view = view[written:]


def set_aside(folder: Path, record: Record, refused: Refused) -> None:
    """Put a record into a file of those set aside; durable on return. Blocks on the disk; raises OSError."""
    file = _open(folder)
    try:
        # Numbers of several files meet here.
        sequence = secrets.randbits(62)
        frames = render_record(file.marker, msgspec.structs.replace(record, sequence=sequence))
        frames += render_refused(file.marker, msgspec.structs.replace(refused, sequence=sequence))
        file.append(frames)
    finally:
        file.close()


def _open(folder: Path) -> SpoolFile:
    for path in files(folder, SET_ASIDE):
        file = SpoolFile.adopt(path)
        if file is not None:
            return file
    return SpoolFile.create(folder, SET_ASIDE)
