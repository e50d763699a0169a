"""The embedded transport: the promises of the AMQP one on a single host, kept by one SQLite file and no server."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from broker.api import BrokerError, BrokerInfo, Message, NotPublishedError, OnDelivery, OnPublished, QueueState
from broker.embedded.commit import GroupCommit, Level, Operation, Transaction
from broker.embedded.consuming import LOOK_EVERY_S, EmbeddedSubscription, Watch
from broker.embedded.database import DATABASE_NAME, Owner, explain, free_bytes, open_database, opening, prepare_folder
from broker.embedded.publishing import Publishing
from broker.embedded.queues import (
    count_orphaned,
    count_retrying,
    dead_letter,
    declare,
    inspect,
    now_us,
    remove,
    retry,
    send,
    tidy,
)
from broker.topology import BUILT_IN_CONSUMERS, DEFAULT_RETRY_DELAYS_S, ConsumerQueues

T = TypeVar("T")

#: Bounds an operation as a whole: its wait for the group before it, for the file's lock, and for the disk.
OPERATION_TIMEOUT_S = 10.0


class EmbeddedTransport:
    """A transport in `folder`, which several processes of one host may use at the same time.

    The queues of `consumers` and of the built-in consumers exist as soon as it is entered, and last. Entering raises
    `BrokerError` if the file cannot be used, and says what to do. `retry_delays_s` is the ladder that `retry` knows.
    What another process does is noticed at once; at the latest after `look_every_s`, should its ring get lost.
    Not for network file systems. A process that forks without exec must not hold an open transport: the child would
    keep its parent's deliveries.
    """

    def __init__(
        self,
        folder: Path,
        *,
        consumers: Sequence[ConsumerQueues] = (),
        retry_delays_s: Sequence[float] = DEFAULT_RETRY_DELAYS_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._folder = folder
        self._path = folder / DATABASE_NAME
        self._consumers = (*BUILT_IN_CONSUMERS, *consumers)
        self._retry_delays_s = tuple(retry_delays_s)
        self._identity: tuple[int, int] | None = None
        self._ready = asyncio.Event()
        self._owner = Owner(folder)
        self._commits = GroupCommit(self._connect, check=self._check, free_bytes=lambda: free_bytes(folder))
        self._watch = Watch(self._commits, self._owner, folder, look_every_s=look_every_s)
        self._publishing = Publishing(self._commits, timeout_s=OPERATION_TIMEOUT_S, explain=self._explain)

    @property
    def is_ready(self) -> bool:
        """Whether the file is open."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""
        await self._ready.wait()

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key; if there is none, to the unrecognized."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._publishing.begin(message, partial(_end, ended))
        except (BrokerError, ValueError, OverflowError) as error:
            raise NotPublishedError(str(error)) from error
        await ended

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does, if the file is open; see `broker.Transport`."""
        try:
            self._publishing.begin(message, on_done)
        except (BrokerError, ValueError, OverflowError):
            return False  # `publish` raises what is wrong
        return True

    async def send(self, consumer: str, message: Message) -> None:
        """Put a message into one consumer's queue. If it has none, the message goes to `tiw.orphaned`."""
        await self._keep(lambda: send(consumer, message))

    async def retry(self, consumer: str, message: Message, *, delay_s: float) -> None:
        """Let a message wait for `delay_s` by the wall clock, then `send` it.

        Raises `BrokerError` if there is no such delay.
        """
        if delay_s not in self._retry_delays_s:
            raise BrokerError(f"no retry delay of {delay_s:g} s: there are {self._retry_delays_s}")
        visible_at_us = now_us() + round(delay_s * 1e6)
        await self._keep(lambda: retry(consumer, message, visible_at_us=visible_at_us))

    async def dead_letter(self, consumer: str, message: Message) -> None:
        """Put a message into the consumer's queue of dead letters."""
        await self._keep(lambda: dead_letter(consumer, message))

    def subscribe(
        self, queues: ConsumerQueues, on_delivery: OnDelivery, *, prefetch: int, dead: bool = False
    ) -> EmbeddedSubscription:
        """Consume a consumer's queue, or the queue of its dead letters, both of which it declares."""
        return EmbeddedSubscription(
            queues,
            on_delivery,
            prefetch=prefetch,
            dead=dead,
            owner=self._owner,
            commits=self._commits,
            watch=self._watch,
        )

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits in the queues of `consumers`, over all processes; retries that are not due are not in."""
        return await self._look(inspect(consumers))

    async def count_retrying(self) -> int:
        """Count the messages that wait for their next attempt."""
        return await self._look(count_retrying)

    async def remove(self, consumer: str, *, force: bool) -> None:
        """Delete a consumer's queues. Raises `MissingQueueError`; `BrokerError` while events wait, unless `force`."""
        await self._ask(remove(consumer, force=force), Level.DURABLE)

    async def info(self) -> BrokerInfo:
        """Say which SQLite this is, and how many messages are orphaned."""
        orphaned = await self._look(count_orphaned)
        return BrokerInfo(product="embedded", version=sqlite3.sqlite_version, orphaned=orphaned)

    async def __aenter__(self) -> Self:
        try:
            await self._commits.open(on_commit=self._watch.on_commit)
            await self._ask(declare(self._consumers), Level.DURABLE)
        except BaseException:
            await self._close()
            raise
        self._ready.set()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._ready.clear()
        await self._close()

    async def _close(self) -> None:
        try:
            await self._watch.close()
            await self._commits.close()
        finally:
            self._publishing.close()
            self._owner.leave()

    def _connect(self) -> sqlite3.Connection:
        prepare_folder(self._folder)
        try:
            with opening(self._folder):
                has_company = self._owner.take()
                connection = open_database(self._path, check=not has_company)
                self._identity = self._identify()
                return connection
        except OSError as error:
            raise BrokerError(f"cannot use {self._folder}: {error.strerror}; free space or give access") from error

    def _check(self) -> None:
        # SQLite goes on writing to a file that was deleted, and says that all is well.
        if self._identify() != self._identity:
            raise BrokerError(f"{self._path} was moved or deleted while it was in use; put it back, or start again")

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    async def _keep(self, make: Callable[[], Operation[None]]) -> None:
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                await self._commits.submit(make(), Level.DURABLE)
        except (TimeoutError, BrokerError, sqlite3.Error, ValueError, OverflowError) as error:
            raise NotPublishedError(self._explain(error)) from error

    async def _ask(self, operation: Operation[T], level: Level) -> T:
        """Run an operation on the state of this moment: due retries brought home, dead owners' claims returned."""
        freshen = tidy(self._owner, self._watch.held)

        def fresh(transaction: Transaction) -> T:
            freshen(transaction)
            return operation(transaction)

        return await self._submit(fresh, level)

    async def _look(self, operation: Operation[T]) -> T:
        """Run an operation that only reads, on the state of this moment.

        Counting a long queue takes a while: nobody waits with a callback until it is counted.
        """
        await self._submit(tidy(self._owner, self._watch.held), Level.WRITE)
        return await self._submit(operation, Level.READ)

    async def _submit(self, operation: Operation[T], level: Level) -> T:
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                return await self._commits.submit(operation, level)
        except (TimeoutError, sqlite3.Error) as error:
            raise BrokerError(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        match error:
            case sqlite3.Error():
                return explain(error, self._path)
            case TimeoutError():
                return f"{self._path} did not answer within {OPERATION_TIMEOUT_S:g} s"
        return str(error)


def _end(ended: "asyncio.Future[None]", error: BrokerError | None) -> None:
    if ended.done():  # whoever waited was cancelled
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
