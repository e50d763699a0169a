"""The spool's files: one per process at a time, locked by its owner for as long as that lives.

The kernel lets go of a lock with the process, whatever ended it, so a file that can be locked has no owner.
https://man7.org/linux/man-pages/man2/flock.2.html
"""

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

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


class Disk(Protocol):
    """What the spool asks of the operating system, by the names of `os` and `fcntl`. All but `free_bytes` as there."""

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int: ...
    def close(self, descriptor: int) -> None: ...
    def write(self, descriptor: int, data: bytes | memoryview) -> int: ...
    def pread(self, descriptor: int, size_bytes: int, offset_bytes: int) -> bytes: ...
    def fstat(self, descriptor: int) -> os.stat_result: ...
    def fsync(self, descriptor: int) -> None: ...
    def fdatasync(self, descriptor: int) -> None: ...
    def flock(self, descriptor: int, operation: int) -> None: ...

    def free_bytes(self, folder: Path) -> int:
        """Return how much this user may still write to the folder's disk. Raises OSError."""


class SystemDisk:
    """The disk of this machine."""

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        return os.open(path, flags, mode)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def pread(self, descriptor: int, size_bytes: int, offset_bytes: int) -> bytes:
        return os.pread(descriptor, size_bytes, offset_bytes)

    def fstat(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def flock(self, descriptor: int, operation: int) -> None:
        fcntl.flock(descriptor, operation)

    def free_bytes(self, folder: Path) -> int:
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize


class SpoolFolder:
    """The folder of a spool, and who owns which file in it. Every method blocks on the disk.

    `disk` and `random_bytes`, for names and numbers, are arguments so that a simulation can have its own.
    """

    def __init__(
        self, path: Path, *, disk: Disk | None = None, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self.path = path
        self.disk = SystemDisk() if disk is None else disk
        self._random_bytes = random_bytes

    def prepare(self) -> None:
        """Make the folder if it is missing. Raises `SpoolError` if it cannot be made or is on a network.

        A disk that is full or fails is not an error here: the node runs without its spool until it is well again.
        """
        try:
            self.make()
        except OSError as error:
            if error.errno in _PASSING:
                return
            raise SpoolError(f"cannot make the folder {self.path}: {error.strerror}; set TIW_DATA_DIR") from error
        kind = network_file_system(self.path)
        if kind is not None:
            raise SpoolError(
                f"{self.path} is on a network file system ({kind}): set TIW_DATA_DIR to a folder on a local disk"
            )
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise SpoolError(f"{self.path} cannot be written: give this user access to it, or set TIW_DATA_DIR")

    def make(self) -> None:
        """Make the folder (mode 0700) if it is missing. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def files(self, *kinds: str) -> list[Path]:
        """Return the files of each kind in turn, oldest first. Empty if the folder is not there."""
        try:
            found = [Path(entry.path) for entry in os.scandir(self.path) if _NAME.fullmatch(entry.name)]
            aged = sorted(
                (kinds.index(kind), path.stat().st_mtime_ns, path) for path in found if (kind := kind_of(path)) in kinds
            )
        except OSError:
            return []
        return [path for *_, path in aged]

    def free_bytes(self) -> int:
        """Return how much this user may still write to the folder's disk. Raises OSError."""
        return self.disk.free_bytes(self.path)

    def create(self, kind: str) -> "SpoolFile":
        """Make a file with a new name and lock it. Raises OSError."""
        while True:
            path = self.path / f"{self._random_bytes(MARKER_BYTES).hex()}.{kind}"
            # Another process may have taken it for a file without owner in between; it is empty, and soon gone.
            if (file := self._lock(path, os.O_CREAT | os.O_EXCL)) is not None:
                self.sync()
                return file

    def adopt(self, path: Path) -> "SpoolFile | None":
        """Lock a file that has no owner; None if it has one, is gone, or is another one by now. Raises OSError."""
        try:
            return self._lock(path, os.O_NOFOLLOW)
        except FileNotFoundError:
            return None

    def set_aside(self, record: Record, refused: Refused) -> None:
        """Put a record into a file of those set aside; durable on return. Raises OSError."""
        adopted = (self.adopt(path) for path in self.files(SET_ASIDE))
        file = next((file for file in adopted if file is not None), None) or self.create(SET_ASIDE)
        try:
            # Numbers of several files meet here.
            sequence = int.from_bytes(self._random_bytes(8), "big") >> 2
            frames = render_record(file.marker, msgspec.structs.replace(record, sequence=sequence))
            frames += render_refused(file.marker, msgspec.structs.replace(refused, sequence=sequence))
            file.append(frames)
        finally:
            file.close()

    def sync(self) -> None:
        """Make the names in the folder durable: a file whose name is lost is lost. Raises OSError."""
        descriptor = self.disk.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.disk.fsync(descriptor)
        finally:
            self.disk.close(descriptor)

    def _lock(self, path: Path, flags: int) -> "SpoolFile | None":
        """Open a file for appending and lock it; None if somebody else has, or `path` is not this file any more."""
        descriptor = self.disk.open(path, flags | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self.disk.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == self.disk.fstat(descriptor).st_ino:
                return SpoolFile(self, path, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            self.disk.close(descriptor)
            raise
        self.disk.close(descriptor)
        return None


def marker_of(path: Path) -> bytes:
    """Return the marker that a file's name holds."""
    return bytes.fromhex(path.name.partition(".")[0])


def kind_of(path: Path) -> str:
    """Return what a file of the spool is, by its name: `WAITING`, `SET_ASIDE` or `DAMAGED`."""
    return path.name.partition(".")[2]


class SpoolFile:
    """A locked file that records are appended to; a `SpoolFolder` makes it. Every method blocks and raises OSError.

    `records` and `bytes` tell what waits in it and how large it is; `oldest_at_us` when the oldest of those callbacks
    was received, None if nothing waits.
    """

    def __init__(self, folder: SpoolFolder, path: Path, descriptor: int) -> None:
        self.path = path
        self._folder = folder
        self._disk = folder.disk
        self.marker = marker_of(path)
        self._descriptor = descriptor
        self.bytes = self._disk.fstat(descriptor).st_size
        self.records = 0
        self.oldest_at_us: int | None = None

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still where its path says: what is written to a deleted one is lost with this process."""
        try:
            return self.path.stat().st_ino == self._disk.fstat(self._descriptor).st_ino
        except (FileNotFoundError, NotADirectoryError):
            return False

    def append(self, frames: bytes) -> None:
        """Write frames and wait until the disk has them. If that fails, the file is as it was, or it is to be left.

        After a failed fsync nobody knows which pages the disk has: https://lwn.net/Articles/752063/. So a file that
        raised is not appended to again; what was in it before is not touched.
        """
        self._write(frames)
        self._disk.fdatasync(self._descriptor)

    def mark(self, frames: bytes) -> None:
        """Write frames that may be lost in a crash: then something is done once more."""
        self._write(frames)

    def read(self) -> Contents:
        """Read all of it, and bring the counts up to date."""
        size_bytes = self._disk.fstat(self._descriptor).st_size
        pieces = []
        offset = 0
        while offset < size_bytes and (piece := self._disk.pread(self._descriptor, size_bytes - offset, offset)):
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
        self._folder.sync()
        self.close()
        return path

    def close(self) -> None:
        """Let go of the file, as it is: it has no owner then."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            self._disk.close(descriptor)

    def _write(self, frames: bytes) -> None:
        view = memoryview(frames)
        while view:
            written = self._disk.write(self._descriptor, view)
            self.bytes += written
            view = view[written:]
