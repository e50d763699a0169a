"""The disks of ingest nodes: real files in a folder, with the power failing between a write and its fsync.

What the spool asks of a disk goes through here. Descriptors are numbers of our own, so that what a dead
process still closes is nobody else's file.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path
from random import Random

from msgspec import Struct

from chaos.simulation.evidence import Story
from chaos.simulation.processes import PROCESS, Process
from chaos.simulation.virtual_time import Clock, pause, this_thread

_FREE_BYTES = 2**30


class _Open(Struct):
    """An open file. `synced` is how much of it survives a loss of power; `is_named`: its name does, too."""

    descriptor: int
    path: str
    process: Process | None
    synced: int
    is_named: bool


class Disk:
    """What `ingest.spool.Disk` asks for; `fails`: it refuses every write and fsync, as if it were full or broken."""

    def __init__(self, clock: Clock, story: Story, rng: Random) -> None:
        self.fails = False
        self._clock = clock
        self._story = story
        self._rng = rng
        self._files: dict[int, _Open] = {}
        self._next = 1000

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """Open a file for the process that asks."""
        is_new = bool(flags & os.O_CREAT)
        if is_new:
            self._must_work()
        real = os.open(path, flags, mode)
        process = PROCESS.get()
        self._next += 1
        self._files[self._next] = _Open(real, str(path), process, os.fstat(real).st_size, not is_new)
        if is_new:
            self._touch(real)
        if process is not None and self._died not in process.on_death:
            process.on_death.append(self._died)
        return self._next

    def close(self, descriptor: int) -> None:
        """Close a file of a process that lives."""
        os.close(self._file(descriptor).descriptor)
        del self._files[descriptor]

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write to the cache."""
        self._must_work()
        real = self._file(descriptor).descriptor
        written = os.write(real, data)
        self._touch(real)
        return written

    def pread(self, descriptor: int, size_bytes: int, offset_bytes: int) -> bytes:
        """Read from the cache or the disk."""
        return os.pread(self._file(descriptor).descriptor, size_bytes, offset_bytes)

    def fstat(self, descriptor: int) -> os.stat_result:
        """Tell of an open file."""
        return os.fstat(self._file(descriptor).descriptor)

    def fdatasync(self, descriptor: int) -> None:
        """Bring what was written to the disk, which takes a while."""
        file = self._file(descriptor)
        _pass(file.process, "spool written")
        pause(self._rng.choice((0.002, 0.002, 0.02, 0.5)))
        self._must_work()
        file.synced = os.fstat(file.descriptor).st_size
        _pass(file.process, "spool synced")

    def fsync(self, descriptor: int) -> None:
        """Bring a folder's names to the disk."""
        self._must_work()
        folder = self._file(descriptor).path
        pause(0.002)
        for file in self._files.values():
            if os.path.dirname(file.path) == folder:  # noqa: PTH120 - paths as they were given
                file.is_named = True

    def flock(self, descriptor: int, operation: int) -> None:
        """Lock a file, or say that somebody else has."""
        fcntl.flock(self._file(descriptor).descriptor, operation)

    def free_bytes(self, folder: Path) -> int:
        """Tell of a disk that has room."""
        del folder
        return _FREE_BYTES

    def close_all(self) -> None:
        """Close what is still open, when all is over."""
        for file in self._files.values():
            os.close(file.descriptor)
        self._files.clear()

    def _died(self) -> None:
        """Close the files of the dead. If their power failed, what was not synced is lost, or a part of it."""
        loses_power = self._rng.random() < 0.5  # noqa: PLR2004 - one in two
        for number, file in list(self._files.items()):
            if file.process is None or not file.process.is_dead:
                continue
            if loses_power and stat.S_ISREG(os.fstat(file.descriptor).st_mode):
                self._lose_power(file)
            os.close(file.descriptor)
            del self._files[number]

    def _lose_power(self, file: _Open) -> None:
        size = os.fstat(file.descriptor).st_size
        if not file.is_named:
            self._story.tell("disk", "lost a name", size)
            if os.path.exists(file.path):  # noqa: PTH110 - paths as they were given
                os.unlink(file.path)  # noqa: PTH108 - same
        elif file.synced < size:
            left = self._rng.randint(file.synced, size)
            self._story.tell("disk", "tore a file", size, left)
            os.truncate(file.descriptor, left)

    def _file(self, descriptor: int) -> _Open:
        try:
            return self._files[descriptor]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def _touch(self, real: int) -> None:
        now_ns = self._clock.time_ns()
        os.utime(real, ns=(now_ns, now_ns))

    def _must_work(self) -> None:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _pass(process: Process | None, point: str) -> None:
    """Go on, or die here: then the thread is never resumed."""
    if process is not None and process.dies_at(point):
        thread = this_thread()
        if thread is not None:
            thread.park()
