"""The spool: keeps callbacks on this node's disk while the broker does not, and empties itself into it."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import structlog
from msgspec import Struct

from broker import Message
from ingest.config import Publisher
from ingest.spool.drain import Drain, Traffic
from ingest.spool.files import DAMAGED, SET_ASIDE, WAITING, Disk, SpoolError, SpoolFile, SpoolFolder
from ingest.spool.inspection import count_set_aside
from ingest.spool.writer import Threads, Writer
from telemetry import locations, metrics

DEFAULT_MAX_BYTES = 1024 * 1024 * 1024

#: The disk's last bytes are left to others: the broker or the database may live on it.
RESERVED_BYTES = 16 * 1024 * 1024

#: How often the broker's return is looked for, and the metrics are brought up to date.
TURN_S = 0.1

#: How often the disk is looked at, and the folder for files whose owner is gone.
HOUSEKEEPING_S = 1.0

_log = structlog.get_logger()


class Depth(Struct, frozen=True, kw_only=True):
    """What waits in the spool of this process; `oldest_at_us`: when the oldest was received, None if nothing waits."""

    callbacks: int
    bytes: int
    oldest_at_us: int | None


class Spool:
    """An async context manager; while it is entered, callbacks can be put into it, and it drains by itself.

    `folder` may be shared by several processes of one host: each has a file of its own, and takes over the files of
    those that are gone. `max_bytes` bounds all files in it together. The broker's return is looked for every `turn_s`
    seconds, the disk and the folder every `housekeeping_s`. `disk`, `threads` and `random_bytes` are those of the
    machine unless a simulation has its own.

    Entering raises `SpoolError` if the folder can never work, such as one on a network file system; a disk that is full
    or fails now is waited for. Leaving keeps what is left on the disk for the next start.
    """

    is_off = False

    def __init__(
        self,
        folder: Path,
        publisher: Publisher,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        turn_s: float | None = None,
        housekeeping_s: float | None = None,
        disk: Disk | None = None,
        threads: Threads | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._folder = SpoolFolder(folder, disk=disk, random_bytes=random_bytes)
        self._publisher = publisher
        self._max_bytes = max_bytes
        self._turn_s = TURN_S if turn_s is None else turn_s
        self._housekeeping_s = HOUSEKEEPING_S if housekeeping_s is None else housekeeping_s
        self._others_bytes = 0
        self._drain = Drain(self._folder, publisher)
        self._writer = Writer(self._folder, on_sealed=self._drain.add, room_bytes=self._room_bytes, threads=threads)
        self._was_ready = False
        self._tasks: list[asyncio.Task[None]] = []
        self._unreadable: set[Path] = set()
        #: As of the last count of what is set aside; None before the first.
        self._set_aside_sizes_bytes: dict[Path, int] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a callback could be kept now."""
        return self._writer.is_ready

    @property
    def depth(self) -> Depth:
        """What waits now."""
        found = [waiting.file for waiting in self._drain.backlog]
        if self._writer.file is not None and self._writer.file.records:
            found.append(self._writer.file)
        return Depth(
            callbacks=sum(file.records for file in found),
            bytes=sum(file.bytes for file in found),
            oldest_at_us=min((file.oldest_at_us for file in found if file.records and file.oldest_at_us), default=None),
        )

    def make_way_for(self, traffic: Traffic) -> None:
        """Let the drain leave room for these live callbacks from now on."""
        self._drain.traffic = traffic

    def put(self, message: Message) -> "asyncio.Future[None]":
        """Keep a callback; the future ends once the disk has it, and fails with `SpoolError` if it could not be kept.

        Raises `SpoolError` at once if it cannot be tried. Whoever waits sets the deadline.
        """
        return self._writer.append(message)

    async def __aenter__(self) -> Self:
        self._folder.prepare()
        await self._writer.open()
        if self._writer.problem is not None:
            _log.error("spool_not_ready", problem=self._writer.problem)
        self._tasks = [
            asyncio.create_task(self._run(turn), name=f"spool {turn.__name__}")
            for turn in (self._drain_some, self._look_at_disk, self._look_around)
        ]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._writer.close()
        await self._drain.close()

    async def _run(self, turn: Callable[[], Awaitable[float]]) -> None:
        """Do something again and again, as long as the spool is entered; it says when it is next wanted, in seconds."""
        while True:
            try:
                pause_s = await turn()
            except Exception as error:  # noqa: BLE001 - nobody else would go on with it
                _log.error("spool_failed", error=type(error).__name__, frames=locations(error))
                pause_s = self._housekeeping_s
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _drain_some(self) -> float:
        """Drain the file that is due, if the broker is there."""
        is_ready, was_ready = self._publisher.is_ready, self._was_ready
        self._was_ready = is_ready
        if not is_ready:
            return self._turn_s
        if not was_ready:
            self._drain.try_now()
        waiting = self._drain.next_due()
        if waiting is not None:
            await self._drain.run_once(waiting)
        elif self._has_more():
            await self._writer.look(seals=True)
        else:
            return self._turn_s
        return 0

    def _has_more(self) -> bool:
        """Whether to drain what is still written to: nothing else waits, or only for records that were refused."""
        file = self._writer.file
        return file is not None and file.records > 0 and not (self._drain.backlog and self._drain.traffic.is_failing)

    async def _look_at_disk(self) -> float:
        """Find out whether the disk takes anything, also while nobody calls."""
        await self._writer.look()
        return self._housekeeping_s

    async def _look_around(self) -> float:
        """Take over what nobody owns, and set the metrics."""
        self._set_metrics()
        try:
            adopted, self._others_bytes = await self._drain.on_disk(self._adopt, not self._drain.backlog)
            await self._drain.on_disk(self._count_set_aside)
        except OSError as error:
            _log.warning("spool_folder_not_read", error=error.strerror)
            return self._housekeeping_s
        for file in adopted:
            _log.info("spool_file_adopted", file=file.path.name, callbacks=file.records)
            self._drain.add(file)
        return self._housekeeping_s

    def _count_set_aside(self) -> None:
        sizes_bytes = {path: path.stat().st_size for path in self._folder.files(SET_ASIDE)}
        if sizes_bytes != self._set_aside_sizes_bytes:
            # Read whole, and therefore only when something came or went.
            metrics.SPOOL_SET_ASIDE_NOW.set(count_set_aside(self._folder.path))
            self._set_aside_sizes_bytes = sizes_bytes

    def _adopt(self, is_idle: bool) -> tuple[list[SpoolFile], int]:
        """Take over the files that have no owner; return them, and how large all files are that are not ours."""
        others_bytes = sum(path.stat().st_size for path in self._folder.files(SET_ASIDE, DAMAGED))
        adopted: list[SpoolFile] = []
        own = {waiting.file.path for waiting in list(self._drain.backlog)}
        for path in self._folder.files(WAITING):
            writing = self._writer.file
            if path in own or (writing is not None and path == writing.path):
                continue
            try:
                file = self._adopt_and_count(path) if is_idle else None
                if file is None:
                    others_bytes += path.stat().st_size
                    continue
            except FileNotFoundError:
                continue  # drained meanwhile
            except OSError as error:
                if path not in self._unreadable:
                    _log.error("spool_file_not_read", file=path.name, error=error.strerror)
                self._unreadable.add(path)
                continue
            adopted.append(file)
        return adopted, others_bytes

    def _adopt_and_count(self, path: Path) -> SpoolFile | None:
        file = self._folder.adopt(path)
        if file is not None:
            try:
                file.read()
            except OSError:
                file.close()  # for whoever can read it
                raise
        return file

    def _room_bytes(self) -> int:
        own = [waiting.file for waiting in list(self._drain.backlog)]
        writing = self._writer.file
        own_bytes = sum(file.bytes for file in own) + (writing.bytes if writing is not None else 0)
        return min(
            self._max_bytes - self._others_bytes - own_bytes,
            self._folder.free_bytes() - RESERVED_BYTES,
        )

    def _set_metrics(self) -> None:
        depth = self.depth
        metrics.SPOOL_CALLBACKS.set(depth.callbacks)
        metrics.SPOOL_BYTES.set(depth.bytes)
        age_s = 0.0 if depth.oldest_at_us is None else max(0.0, time.time() - depth.oldest_at_us / 1e6)
        metrics.SPOOL_OLDEST_AGE_SECONDS.set(age_s)


class NoSpool:
    """The spool of an ingest node that has none: it is always full."""

    is_off = True
    is_ready = False

    def make_way_for(self, traffic: Traffic) -> None:
        """Have nothing to drain."""

    def put(self, message: Message) -> "asyncio.Future[None]":
        """Keep nothing: raises `SpoolError`."""
        del message
        raise SpoolError("this ingest node has no spool")
