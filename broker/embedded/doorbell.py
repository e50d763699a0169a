"""Tells the other transports of a folder that something changed for them, and hears when one of them ends.

Each transport that consumes has a FIFO beside the file, and who commits something for it writes a byte: so nobody has
to look at the file again and again. The kernel takes a reader away with its process, whatever ended it, and tells those
who hold the other end. Unlike a socket's, a FIFO's path may be long. https://man7.org/linux/man-pages/man7/fifo.7.html

A ring may get lost, with the process that was about to ring or with the FIFO; then the next look finds what it was for.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from broker.embedded.database import bell_path, close_in_forks, close_now

#: As much as a FIFO holds: https://man7.org/linux/man-pages/man7/pipe.7.html
_CAPACITY_BYTES = 65_536


class Doorbell:
    """The FIFO of one transport, and the other ends of the others'. Lives on the event loop.

    `on_ring` is called when somebody rang, `on_end` when one of those that are known has ended.
    """

    def __init__(self, folder: Path, *, on_ring: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._folder = folder
        self._on_ring = on_ring
        self._on_end = on_end
        self._name = ""
        self._own: int | None = None
        self._others: dict[str, int] = {}
        self._knows_all = True

    @property
    def is_heard(self) -> bool:
        """Whether others can ring here, and all that should be known are: otherwise one has to look."""
        return self._own is not None and self._knows_all

    def hang(self, name: str) -> None:
        """Make the FIFO of the transport `name`, also if it was deleted. Where none can be had, do nothing."""
        path = bell_path(self._folder, name)
        if self._own is not None:
            try:
                if os.path.samestat(path.lstat(), os.fstat(self._own)):
                    return
            except OSError:  # deleted
                pass
            self._take_down()
        try:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            # For writing, too: otherwise it would be readable for ever once a writer has come and gone.
            self._own = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a file system without FIFOs, no descriptor left
            return
        self._name = name
        close_in_forks(self._own)
        asyncio.get_running_loop().add_reader(self._own, self._heard, self._own)

    def know(self, names: Iterable[str]) -> None:
        """Hear from now on when one of the transports `names` ends, and of no others."""
        wanted = frozenset(names)
        for name in self._others.keys() - wanted:
            self._drop(name)
        for name in wanted - self._others.keys():
            descriptor = self._open(name)
            if descriptor is not None:
                self._others[name] = descriptor
                # The end for writing becomes readable, with an error, when there is no reader any more. asyncio's own
                # pipes rely on it: https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/unix_events.py#L629-L634
                asyncio.get_running_loop().add_reader(descriptor, self._ended, name)
        self._knows_all = wanted == self._others.keys()

    def ring(self, names: Iterable[str]) -> None:
        """Let the transports `names` look. Who cannot be reached looks by itself, some time."""
        for name in names:
            if name in self._others and _write(self._others[name]):
                continue
            descriptor = self._open(name)  # of one that is new, or made its FIFO anew
            if descriptor is not None:
                _write(descriptor)
                os.close(descriptor)

    def close(self) -> None:
        """Remove the FIFO and let go of the others'."""
        self._take_down()
        for name in tuple(self._others):
            self._drop(name)

    def _take_down(self) -> None:
        if self._own is None:
            return
        asyncio.get_running_loop().remove_reader(self._own)
        bell_path(self._folder, self._name).unlink(missing_ok=True)
        close_now(self._own)
        self._own = None

    def _open(self, name: str) -> int | None:
        try:
            descriptor = os.open(bell_path(self._folder, name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # it has ended, or has no FIFO
            return None
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def _drop(self, name: str) -> None:
        descriptor = self._others.pop(name)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def _heard(self, descriptor: int) -> None:
        try:
            os.read(descriptor, _CAPACITY_BYTES)
        except BlockingIOError:
            return
        self._on_ring()

    def _ended(self, name: str) -> None:
        self._drop(name)
        self._on_end()


def _write(descriptor: int) -> bool:
    """Write a byte; False if nobody is there to read it."""
    try:
        os.write(descriptor, b"\0")
    except OSError as error:
        # A full one has not been read yet, and will be.
        return error.errno == errno.EAGAIN
    return True
