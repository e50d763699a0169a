"""Group commit into the spool: one thread writes all callbacks that wait, with one fsync for all of them."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import Struct

from broker import Message
from ingest.spool.files import WAITING, SpoolError, SpoolFile, SpoolFolder
from ingest.spool.format import Record, render_record, render_settled
from telemetry import locations

#: A file is sealed beyond this: it is drained as a whole, and read into memory for that.
FILE_BYTES = 8 * 1024 * 1024

#: What a disk that hangs may hold back in memory, those included whose senders were told 503 meanwhile.
UNWRITTEN_BYTES = 64 * 1024 * 1024

#: A disk that has not answered for so long keeps nothing now.
DISK_TIMEOUT_S = 2.5

#: How long a close waits for a disk that hangs.
_CLOSE_TIMEOUT_S = 2.0

_log = structlog.get_logger()


T = TypeVar("T")


class Inbox(Protocol[T]):
    """What one thread hands to another, as `queue.SimpleQueue` does."""

    def put(self, item: T) -> None: ...
    def get(self) -> T: ...
    def get_nowait(self) -> T: ...


class Threads(Protocol):
    """Where the spool gets its thread from: a simulation has its own."""

    def start(self, work: Callable[[], None], *, name: str) -> None:
        """Run `work` in a thread that does not outlive the process."""

    def inbox(self) -> Inbox[Any]:
        """Make one that the thread waits for."""


class SystemThreads:
    """The threads of this process."""

    def start(self, work: Callable[[], None], *, name: str) -> None:
        threading.Thread(target=work, daemon=True, name=name).start()

    def inbox(self) -> Inbox[Any]:
        return SimpleQueue()


class _Waiting(Struct, frozen=True):
    message: Message
    kept: "asyncio.Future[None]"


class _Look(Struct, frozen=True):
    """A request to look whether the disk takes something, and with `seals` to finish the file."""

    done: "asyncio.Future[None]"
    seals: bool


class Writer:
    """The thread, and the file that it appends to; an empty one from the start, so that a disk's fault shows early.

    `on_sealed` is called on the event loop with each file that is finished and holds something. `room_bytes` tells how
    many more bytes the spool may take; it is called in the thread and may raise OSError.
    """

    def __init__(
        self,
        folder: SpoolFolder,
        *,
        on_sealed: Callable[[SpoolFile], None],
        room_bytes: Callable[[], int],
        threads: Threads | None = None,
    ) -> None:
        self._folder = folder
        self._on_sealed = on_sealed
        self._room_bytes = room_bytes
        self._threads = SystemThreads() if threads is None else threads
        self._inbox: Inbox[list[_Waiting] | _Look | None] = self._threads.inbox()
        self._gathered: list[_Waiting] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._sequence = 0
        self._unwritten_bytes = 0
        # When the thread was given something, since it was last done with what it had.
        self._asked_at_s: float | None = None
        #: The file that is appended to, for a look at its counts.
        self.file: SpoolFile | None = None
        #: Why the disk did not take what it was given last; None while all is well.
        self.problem: str | None = "the spool is not open"

    @property
    def is_ready(self) -> bool:
        """Whether the disk takes what it is given, as far as is known."""
        if self._asked_at_s is not None and time.monotonic() - self._asked_at_s > DISK_TIMEOUT_S:
            return False
        return self.problem is None

    async def open(self) -> None:
        """Start the thread and wait for its first file. A disk that does not take one is told by `problem`."""
        loop = self._loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._threads.start(partial(self._work, loop, self._ended), name="spool")
        # A disk that hangs keeps no node from starting.
        await asyncio.wait({asyncio.create_task(self.look(), name="spool look")}, timeout=DISK_TIMEOUT_S)

    def append(self, message: Message) -> "asyncio.Future[None]":
        """Queue a callback; the future ends when it is durable, and fails with `SpoolError` if it is not.

        Raises `SpoolError` at once if too much waits for the disk already.
        """
        if self._loop is None:
            raise SpoolError("the spool is not open")
        if self._unwritten_bytes + len(message.body) > UNWRITTEN_BYTES:
            raise SpoolError("the disk of the spool does not answer")
        self._unwritten_bytes += len(message.body)
        self._asked_at_s = self._asked_at_s or time.monotonic()
        if not self._gathered:
            # Everything that the event loop does in this round becomes one write.
            self._loop.call_soon(self._hand_over)
        kept: asyncio.Future[None] = self._loop.create_future()
        self._gathered.append(_Waiting(message, kept))
        return kept

    async def look(self, *, seals: bool = False) -> None:
        """Bring `problem` up to date; with `seals`, hand over the file if something is in it."""
        if self._loop is None:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._asked_at_s = self._asked_at_s or time.monotonic()
        self._inbox.put(_Look(done, seals))
        await done

    async def close(self) -> None:
        """Write what waits and let go of the file; one that is empty is removed."""
        if self._loop is None or self._ended is None:
            return
        self._hand_over()
        self._loop = None
        self._inbox.put(None)
        await asyncio.wait([self._ended], timeout=_CLOSE_TIMEOUT_S)

    def _hand_over(self) -> None:
        if self._gathered:
            self._inbox.put(self._gathered)
            self._gathered = []

    def _work(self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
        is_last = False
        while not is_last:
            group, looks, is_last = self._next()
            if group:
                _call(loop, self._settle, group, self._try_to_write(loop, group))
            for look in looks:
                self._look(loop, seals=look.seals)
                _call(loop, self._end_look, look.done)
        if self.file is not None:
            self._let_go(self.file)
        _call(loop, _end, ended)

    def _next(self) -> tuple[list[_Waiting], list[_Look], bool]:
        """Wait for a request, and take all that came with it; say whether it was the last."""
        group: list[_Waiting] = []
        looks: list[_Look] = []
        request = self._inbox.get()
        while request is not None:
            if isinstance(request, _Look):
                looks.append(request)
            else:
                group += request
            try:
                request = self._inbox.get_nowait()
            except Empty:
                return group, looks, False
        return group, looks, True

    def _try_to_write(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting]) -> list[str | None]:
        try:
            return self._write(loop, group)
        except Exception as error:  # noqa: BLE001 - or else the thread would end, and keep nothing more
            _log.error("spooling_failed", error=type(error).__name__, frames=locations(error))
            return [f"an error of the receiver: {type(error).__name__}"] * len(group)

    def _write(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting]) -> list[str | None]:
        """Write a group; return for each callback why it is not kept, None where it is."""
        problems: list[str | None] = []
        messages: list[Message] = []
        frames = bytearray()
        try:
            file = self._open_file(loop)
            room_bytes = self._room_bytes()
            for waiting in group:
                # Whoever waited is gone, and was told 503.
                problem = "not waited for" if waiting.kept.cancelled() else None
                frame = b"" if problem else self._render(file, waiting.message)
                if len(frames) + len(frame) > room_bytes:
                    problem = _FULL
                if problem is None:
                    frames += frame
                    messages.append(waiting.message)
                problems.append(problem)
            if frames:
                file.append(bytes(frames))
        except OSError as error:
            self._leave(loop, error)
            return [self.problem] * len(group)
        file.records += len(messages)
        oldest_at_us = min((message.received_at_us for message in messages), default=None)
        if oldest_at_us is not None and (file.oldest_at_us is None or oldest_at_us < file.oldest_at_us):
            file.oldest_at_us = oldest_at_us
        self.problem = _FULL if _FULL in problems else None
        if file.bytes > FILE_BYTES:
            self._seal(loop)
        return problems

    def _open_file(self, loop: asyncio.AbstractEventLoop) -> SpoolFile:
        if self.file is not None and not self.file.is_in_place:
            # Deleted by somebody. What is in it can still be read, and drained.
            self._seal(loop)
        if self.file is None:
            self._folder.make()
            self.file = self._folder.create(WAITING)
        return self.file

    def _render(self, file: SpoolFile, message: Message) -> bytes:
        self._sequence += 1
        record = Record(sequence=self._sequence, spooled_at_us=time.time_ns() // 1000, message=message)
        return render_record(file.marker, record)

    def _look(self, loop: asyncio.AbstractEventLoop, *, seals: bool) -> None:
        if seals and self.file is not None and self.file.records:
            self._seal(loop)
        try:
            if self.problem is not None or self.file is None or not self.file.is_in_place:
                file = self._open_file(loop)
                file.append(render_settled(file.marker, []))
            self.problem = _FULL if self._room_bytes() <= 0 else None
        except OSError as error:
            self._leave(loop, error)
        except Exception as error:  # noqa: BLE001 - as above
            self.problem = f"an error of the receiver: {type(error).__name__}"
            _log.error("spooling_failed", error=type(error).__name__, frames=locations(error))

    def _leave(self, loop: asyncio.AbstractEventLoop, error: OSError) -> None:
        """Append nothing more to the file: see `SpoolFile.append`."""
        self.problem = f"the disk of the spool does not take anything: {error.strerror}"
        self._seal(loop)

    def _seal(self, loop: asyncio.AbstractEventLoop) -> None:
        file, self.file = self.file, None
        if file is None:
            return
        if file.records:
            _call(loop, self._on_sealed, file)
        else:
            self._let_go(file)

    def _let_go(self, file: SpoolFile) -> None:
        # What is left behind is drained, or removed, by whoever adopts it.
        with contextlib.suppress(OSError):
            if file.records:
                file.close()
            else:
                file.remove()

    def _end_look(self, done: "asyncio.Future[None]") -> None:
        self._asked_at_s = None
        _end(done)

    def _settle(self, group: list[_Waiting], problems: list[str | None]) -> None:
        self._asked_at_s = None
        for waiting, problem in zip(group, problems, strict=True):
            self._unwritten_bytes -= len(waiting.message.body)
            if waiting.kept.done():
                continue
            if problem is None:
                waiting.kept.set_result(None)
            else:
                waiting.kept.set_exception(SpoolError(problem))


_FULL = "the spool is full, or its disk is: see TIW_SPOOL_MAX_BYTES"


def _end(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on the event loop, unless that has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
