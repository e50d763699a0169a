"""The drain: publishes what waits in the spool, oldest first, and leaves room for live traffic."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog
from msgspec import Struct, field

from broker import BrokerError
from ingest.config import Publisher
from ingest.spool.files import SET_ASIDE, WAITING, SpoolFile, SpoolFolder
from ingest.spool.format import Contents, Record, Refused, render_refused, render_settled
from telemetry import locations, metrics

T = TypeVar("T")

#: A record that the broker refused so often is set aside.
REFUSALS_TO_SET_ASIDE = 5

#: Or one that met so many time-outs and lost connections: perhaps it is what ends them.
LOSSES_TO_SET_ASIDE = 25

#: A refusal comes at once; what takes longer waited for something that did not come.
_ANSWER_S = 1.0

#: The pauses after the first refusals: a queue that lost its majority refuses for a while, too.
REFUSAL_DELAYS_S = (5.0, 30.0, 120.0)

#: How many records are on their way to the broker at once; it begins with one, which finds out whether any gets there.
WINDOW = 32

#: So many windows in a row of which nothing was confirmed: the broker is away, whatever it says.
_FRUITLESS_WINDOWS = 3

#: When a file is tried again if the broker went away over it, doubled with each loss of a record that was alone in it;
#: or if its disk failed.
AWAY_DELAY_S = 1.0
DISK_DELAY_S = 10.0
_LONGEST_DOUBLINGS = 5

#: How long a close waits for a disk that hangs.
_CLOSE_TIMEOUT_S = 2.0

#: A transport bounds its publishes by itself; one that hangs is not waited for.
_PUBLISH_TIMEOUT_S = 3.0

_log = structlog.get_logger()


class Traffic(Protocol):
    """What the drain has to know of live callbacks: they go before it, and the broker confirms both."""

    @property
    def is_busy(self) -> bool:
        """Whether many of them wait for the broker."""

    @property
    def is_failing(self) -> bool:
        """Whether the broker does not confirm them."""

    @property
    def confirmations(self) -> int:
        """How many publishes the broker has confirmed, the drain's included."""

    def confirmed(self) -> None:
        """Take note that the broker confirmed a publish of the drain."""


class NoTraffic:
    """Nobody but the drain publishes."""

    is_busy = False
    is_failing = False

    def __init__(self) -> None:
        self.confirmations = 0

    def confirmed(self) -> None:
        """Take note that the broker confirmed a publish of the drain."""
        self.confirmations += 1


class Failure(Struct, frozen=True, kw_only=True):
    """Why a record was not confirmed; `is_answer`: a broker that was there said so, at once.

    `confirmations` is how many publishes the broker had confirmed then: only if it has confirmed another one since, it
    was the record that was refused.
    """

    reason: str
    is_answer: bool
    confirmations: int


class Backlog(Struct, kw_only=True):
    """A file that waits to be drained.

    `failed` are records that did not get through the last time. `losses` counts how often each has met a time-out or a
    lost connection, which may be its fault or not. `is_suspect`: only such records are left in it.
    """

    file: SpoolFile
    due_at_s: float = 0.0
    is_suspect: bool = False
    failed: dict[int, Failure] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)


class Drain:
    """Drains files, until it is closed; `traffic` are the live callbacks that go before it."""

    def __init__(self, folder: SpoolFolder, publisher: Publisher) -> None:
        self._folder = folder
        self._publisher = publisher
        self.traffic: Traffic = NoTraffic()
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="spool-drain")
        self.backlog: list[Backlog] = []
        #: How many callbacks it has brought to the broker.
        self.drained = 0

    async def close(self) -> None:
        """Let go of all files, as far as they have got; behind what the thread is still doing with one of them."""
        files = [waiting.file for waiting in self.backlog]
        self.backlog.clear()
        await asyncio.wait({asyncio.ensure_future(self.on_disk(_close_all, files))}, timeout=_CLOSE_TIMEOUT_S)
        self._disk_thread.shutdown(wait=False, cancel_futures=True)

    def add(self, file: SpoolFile) -> None:
        """Take a locked file that nobody appends to any more."""
        self.backlog.append(Backlog(file=file))

    def try_now(self) -> None:
        """Try again at once: the broker has come back. What may have sent it away is not in a hurry."""
        for waiting in self.backlog:
            if not waiting.is_suspect:
                waiting.due_at_s = 0.0

    def next_due(self) -> Backlog | None:
        """Return the file with the oldest callback of those whose time has come, suspects last."""
        now_s = time.monotonic()
        due = [waiting for waiting in self.backlog if waiting.due_at_s <= now_s]
        return min(due, key=lambda waiting: (waiting.is_suspect, waiting.file.oldest_at_us or 0), default=None)

    async def run_once(self, waiting: Backlog) -> int:
        """Publish what is in a file as far as the broker takes it; return how many are left in it.

        Once nothing is left, the file is removed.
        """
        file = waiting.file
        left = file.records
        try:
            contents = await self.on_disk(file.read)
            left = await self._publish_all(waiting, await self._judge(waiting, contents))
            if not left:
                await self._finish(waiting, contents)
            else:
                waiting.is_suspect = len(waiting.failed) == left
                waiting.due_at_s = time.monotonic() + _delay_s(waiting, contents)
        except OSError as error:
            _log.error("spool_file_failed", file=file.path.name, error=error.strerror, retry_in_s=DISK_DELAY_S)
            waiting.due_at_s = time.monotonic() + DISK_DELAY_S
        return left

    async def _judge(self, waiting: Backlog, contents: Contents) -> list[Record]:
        """Count the refusals of the last time, set aside who had enough; return who is to be published."""
        file = waiting.file
        settled: list[int] = []
        for record in contents.pending:
            failure = waiting.failed.pop(record.sequence, None)
            if failure is None or self.traffic.confirmations == failure.confirmations:
                continue
            before = contents.refused.get(record.sequence)
            refusals = before.refusals if before else 0
            losses = waiting.losses.get(record.sequence, 0)
            if failure.is_answer:
                refusals += 1
            else:
                losses = waiting.losses[record.sequence] = losses + 1
            refused = Refused(sequence=record.sequence, refusals=refusals, reason=failure.reason)
            if refusals < REFUSALS_TO_SET_ASIDE and losses < LOSSES_TO_SET_ASIDE:
                if failure.is_answer:
                    contents.refused[record.sequence] = refused
                    await self.on_disk(file.mark, render_refused(file.marker, refused))
                continue
            await self.on_disk(self._folder.set_aside, record, refused)
            settled.append(record.sequence)
            metrics.SPOOL_SET_ASIDE.inc()
            _log.error("callback_set_aside", event_id=record.message.event_id, refusals=refusals, losses=losses)
        if settled:
            await self._settle(file, settled)
        gone = set(settled)
        records = [record for record in contents.pending if record.sequence not in gone]
        # Those that were refused come last: whatever they do to the channel, the others are through.
        return sorted(records, key=lambda record: record.sequence in contents.refused)

    async def _publish_all(self, waiting: Backlog, records: list[Record]) -> int:
        """Publish records until all were tried, or the broker takes none; return how many are not settled."""
        pending = deque(records)
        window, fruitless = 1, 0
        while pending and fruitless < _FRUITLESS_WINDOWS:
            batch = [pending.popleft() for _ in range(min(window, len(pending)))]
            began_s = time.monotonic()
            failures = await asyncio.gather(*(self._publish(record) for record in batch))
            settled = []
            for record, failure in zip(batch, failures, strict=True):
                if failure is None:
                    settled.append(record.sequence)
                else:
                    waiting.failed[record.sequence] = failure
            if settled:
                self.drained += len(settled)
                metrics.SPOOL_DRAINED.inc(len(settled))
                await self._settle(waiting.file, settled)
                window, fruitless = min(2 * window, WINDOW), 0
            else:
                window, fruitless = 1, fruitless + 1
            # As long again: the loop and the broker are free for live traffic for half of the time at least.
            await asyncio.sleep((time.monotonic() - began_s) * (4 if self.traffic.is_busy else 1))
        return len(pending) + len(waiting.failed)

    async def _publish(self, record: Record) -> Failure | None:
        """Publish a record; return why it was not confirmed, None if it was."""
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_S):
                await self._publisher.publish(record.message)
        except BrokerError as error:
            # Not told to live traffic: it may be the record's own fault, and live callbacks find out by themselves.
            reason = str(error)
        except TimeoutError:
            reason = "the broker did not answer in time"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this record's, and must hold up no other
            _log.error("draining_failed", error=type(error).__name__, frames=locations(error))
            reason = f"it cannot be published: {type(error).__name__}"
        else:
            self.traffic.confirmed()
            return None
        return Failure(
            reason=reason,
            is_answer=self._publisher.is_ready and time.monotonic() - began_s < _ANSWER_S,
            confirmations=self.traffic.confirmations,
        )

    async def _settle(self, file: SpoolFile, sequences: list[int]) -> None:
        await self.on_disk(file.mark, render_settled(file.marker, sequences))
        file.records -= len(sequences)

    async def _finish(self, waiting: Backlog, contents: Contents) -> None:
        file = waiting.file
        if contents.damaged_bytes or contents.unknown_frames:
            path = await self.on_disk(file.keep_as_damaged)
            _log.error(
                "spool_file_damaged",
                file=path.name,
                damaged_bytes=contents.damaged_bytes,
                unknown_frames=contents.unknown_frames,
            )
        else:
            await self.on_disk(file.remove)
        self.backlog.remove(waiting)

    async def on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function that waits for the disk in the drain's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk_thread, function, *arguments)


def _close_all(files: list[SpoolFile]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.close()


def _delay_s(waiting: Backlog, contents: Contents) -> float:
    """Return the least pause that is due to any record that is left."""
    if not waiting.is_suspect:
        return AWAY_DELAY_S
    return min(_delay_of_s(contents.refused.get(number), waiting.losses.get(number, 0)) for number in waiting.failed)


def _delay_of_s(refused: Refused | None, losses: int) -> float:
    if refused is not None and refused.refusals <= len(REFUSAL_DELAYS_S):
        return REFUSAL_DELAYS_S[refused.refusals - 1]
    return AWAY_DELAY_S * 2.0 ** min(losses, _LONGEST_DOUBLINGS)


class Emptied(Struct, frozen=True, kw_only=True):
    """What became of it: callbacks that are with the broker now, those that are left, and files that others drain."""

    drained: int
    left: int
    owned_files: int


async def empty_spool(folder: Path, publisher: Publisher, *, with_set_aside: bool) -> Emptied:
    """Publish all callbacks in the files of `folder` that have no owner; `with_set_aside` those set aside, too.

    Each is tried once; what the broker does not confirm stays where it is. Raises OSError if a file cannot be read.
    """
    spool_folder = SpoolFolder(folder)
    drain = Drain(spool_folder, publisher)
    owned_files = 0
    try:
        for path in spool_folder.files(WAITING, *([SET_ASIDE] if with_set_aside else [])):
            file = spool_folder.adopt(path)
            if file is None:
                owned_files += 1
            else:
                drain.add(file)
        left = 0
        for waiting in list(drain.backlog):
            left += await drain.run_once(waiting)
        return Emptied(drained=drain.drained, left=left, owned_files=owned_files)
    finally:
        await drain.close()
