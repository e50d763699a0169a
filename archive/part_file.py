"""The part of a file that has been fetched so far: on local disk, one writer at a time, with its digests."""

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Final

from fastcrc import crc64

from archive.addresses import FetchError

_BLOCK: Final = 1 << 20
#: A disk fills up slowly.
_CHECK_ROOM_EVERY: Final = 16 * _BLOCK
#: https://www.man7.org/linux/man-pages/man2/readv.2.html: no more buffers than IOV_MAX, 1024 on Linux.
MAX_PIECES: Final = 512
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(FetchError):
    """The disk of the part files has no room to spare. What is there stays, and is resumed."""


class PartFile:
    """A part file. Its length is where the rest begins; its digests are of all that it holds.

    `open` locks it until `close`. All methods block, and belong on one thread; `give_up` may be called on any.
    """

    def __init__(self, path: Path, *, min_free_bytes: int, free_bytes: Callable[[Path], int]) -> None:
        self.path = path
        self.size = 0
        self._min_free_bytes = min_free_bytes
        self._free_bytes = free_bytes
        self._unchecked = 0
        self._failure: FetchError | None = None
        self._file = -1
        self._given_up = Event()
        self._sha256 = hashlib.sha256()
        self._crc64 = 0

    @property
    def sha256(self) -> str:
        """In hex."""
        return self._sha256.hexdigest()

    @property
    def crc64(self) -> int:
        """CRC-64/XZ."""
        return self._crc64

    def open(self) -> None:
        """Lock the file, which is made if it is not there, and read what it holds.

        Raises FetchError if another process has it, or if it is not a plain file of our own.
        """
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError("another process is fetching it into the same part file") from None
        except OSError as error:
            if error.errno in _FULL:
                raise _full() from None
            raise FetchError(f"its part file cannot be opened: {os.strerror(error.errno or 0)}") from None
        # Who had the lock until now may have put it elsewhere, whole.
        if not self._is_ours():
            raise FetchError("its part file is a link, or no file, or was just put elsewhere")
        self._read()

    def _is_ours(self) -> bool:
        ours = os.fstat(self._file)
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        is_same = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        return is_same and stat.S_ISREG(ours.st_mode) and ours.st_nlink == 1

    def _read(self) -> None:
        block = memoryview(bytearray(_BLOCK))
        while (length := os.preadv(self._file, [block], self.size)) and not self._given_up.is_set():
            self._digest(block[:length])

    def _digest(self, piece: bytes | memoryview) -> None:
        self._sha256.update(piece)
        self._crc64 = crc64.xz(piece, self._crc64)
        self.size += len(piece)

    def give_up(self) -> None:
        """Have `open` end soon, however much the file holds; the file is good for nothing but `close` then."""
        self._given_up.set()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Write what comes next, at most MAX_PIECES. Raises FetchError, and for good: nothing may follow a gap."""
        if self._failure is not None:
            raise self._failure
        try:
            self._write(pieces)
        except FetchError as error:
            self._failure = error
            raise

    def _write(self, pieces: Sequence[bytes]) -> None:
        size = sum(map(len, pieces))
        self._unchecked += size
        if self._unchecked >= _CHECK_ROOM_EVERY:
            self._unchecked = 0
            self.check_room(0)
        try:
            written = os.pwritev(self._file, pieces, self.size)
            if written < size:
                self._write_all(b"".join(pieces)[written:], self.size + written)
        except OSError as error:
            if error.errno in _FULL:
                raise _full() from None
            raise FetchError(f"its part file cannot be written: {os.strerror(error.errno or 0)}") from None
        for piece in pieces:
            self._digest(piece)

    def _write_all(self, data: bytes, place: int) -> None:
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written

    def check_room(self, bytes_to_come: int) -> None:
        """Raise DiskFullError if the disk would have less than its floor with so many bytes more."""
        if self._free_bytes(self.path.parent) - bytes_to_come < self._min_free_bytes:
            raise _full()

    def empty(self) -> None:
        """Begin anew."""
        os.ftruncate(self._file, 0)
        self.size = self._crc64 = 0
        self._sha256 = hashlib.sha256()

    def begins_with(self, size: int) -> bytes:
        """Return the first bytes."""
        return os.pread(self._file, size, 0)

    def sync(self) -> None:
        """Have the disk keep it."""
        os.fsync(self._file)

    def delete(self) -> None:
        """Delete the file; it stays locked until `close`."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close and unlock it, if it is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _full() -> DiskFullError:
    return DiskFullError("the disk of the part files is full down to its floor: make room there")


def free_bytes(folder: Path) -> int:
    """Return how many bytes of its disk are free to us."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
