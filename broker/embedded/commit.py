"""Group commit: one thread runs all operations that wait in one transaction, with one fsync for all of them."""

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias, TypeVar

import structlog
from msgspec import Struct

from broker.api import BrokerError, Message
from broker.embedded.database import LOCK_TIMEOUT_S, error_code, is_full, is_trouble
from broker.topology import BUILT_IN_CONSUMERS, ORPHANED_QUEUE, ConsumerQueues, dead_queue_name, queue_name
from schemas import UNRECOGNIZED

_log = structlog.get_logger()


class Claimed(Struct, frozen=True, kw_only=True):
    """A message that was handed over, and how often it came back before."""

    id: int
    deliveries: int
    message: Message


class Taker:
    """A subscription of this process, as the thread sees it: how much it may still be handed.

    Each number has one writer: `prefetch` and `settled` the event loop, `taken` the thread. `has_all` says that its
    queue holds nothing that it could claim: then what is published is handed to it without ever having been ready. The
    event loop takes that back when it hears of anything that is ready.
    """

    __slots__ = ("deliver", "has_all", "id", "prefetch", "queue", "settled", "taken")

    def __init__(self, *, queue: str, prefetch: int, deliver: "Callable[[Sequence[Claimed]], None]") -> None:
        self.id = secrets.randbits(62)
        self.queue = queue
        self.prefetch = prefetch
        self.deliver = deliver
        self.has_all = False
        self.taken = 0
        self.settled = 0

    @property
    def room(self) -> int:
        """How many messages it may be handed now."""
        return self.prefetch - (self.taken - self.settled)


class Takers:
    """The subscriptions of this process, by queue. Changed by the event loop, read by the thread."""

    def __init__(self) -> None:
        self._by_queue: dict[str, tuple[Taker, ...]] = {}

    def add(self, taker: Taker) -> None:
        """Let it be found."""
        self._by_queue = self._by_queue | {taker.queue: (*self.of(taker.queue), taker)}

    def discard(self, taker: Taker) -> None:
        """Let it be found no longer."""
        self._by_queue = self._by_queue | {taker.queue: tuple(one for one in self.of(taker.queue) if one is not taker)}

    def of(self, queue: str) -> Sequence[Taker]:
        """Return those of a queue."""
        return self._by_queue.get(queue, ())


class Routes:
    """The queues and bindings of the file, and who listens to which queue, as one connection sees them.

    `learn` has to be called in each transaction before anything else is asked, and again after `forget`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version: int | None = None
        self.queues: set[str] = set()
        self._bound: dict[str, list[str]] = {}
        self.listeners: dict[str, set[str]] = {}
        self.subscriptions: set[int] = set()

    def learn(self) -> None:
        """Read the routes, unless no other connection has changed the file since they were last read.

        The file's version stays the same for changes of one's own:
        https://www.sqlite.org/pragma.html#pragma_data_version
        """
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        self.queues = {name for (name,) in self._connection.execute("SELECT name FROM queues")}
        self._bound = {}
        for routing_key, queue in self._connection.execute("SELECT routing_key, queue FROM bindings"):
            self._bound.setdefault(routing_key, []).append(queue)
        self.listeners = {}
        self.subscriptions = set()
        for number, queue, owner in self._connection.execute("SELECT id, queue, owner FROM subscriptions"):
            self.listeners.setdefault(queue, set()).add(owner)
            self.subscriptions.add(number)
        self._version = version

    def forget(self) -> None:
        """Read them anew at the next occasion: they are being changed, or a change was undone."""
        self._version = None

    def bound_to(self, routing_key: str) -> Sequence[str]:
        """Return the queues bound to a routing key."""
        return self._bound.get(routing_key, ())


#: On a disk that is full to its last byte no event can be settled either, so nothing would ever free it.
RESERVED_BYTES = 16 * 1024 * 1024

#: Rows of one INSERT, so that few statements are prepared.
_ROWS_AT_ONCE = (128, 64, 32, 16, 8, 4, 2, 1)
_INSERT = "INSERT INTO messages (queue, visible_at_us, claimed_by, message) VALUES "
_INSERTS = {count: _INSERT + ", ".join(["(?, ?, ?, ?)"] * count) for count in _ROWS_AT_ONCE}


_UNRECOGNIZED_CONSUMER = next(queues for queues in BUILT_IN_CONSUMERS if queues.consumer == UNRECOGNIZED)


class Transaction:
    """Runs SQL for operations; gathers the rows of all their messages and inserts them at once.

    `touched` names the queues in which something may have become ready, `listeners` the owners of subscriptions to
    them, and `due_at_us` is when the first of the retries that were inserted is due. `handed_over` are messages that
    were inserted as claimed already, for subscriptions of this process.
    """

    def __init__(
        self, connection: sqlite3.Connection, routes: Routes, takers: Takers, free_bytes: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._routes = routes
        self._takers = takers
        self._free_bytes = free_bytes
        self._spare_bytes: int | None = None
        self._rows: list[tuple[str, int, int | None, bytes]] = []
        #: Those of the rows that are handed over, by their places.
        self._handed_rows: list[tuple[int, Taker, Message]] = []
        self._taken: list[tuple[Taker, int]] = []
        self.handed_over: dict[Taker, list[Claimed]] = {}
        self._knows_routes = False
        self.touched: set[str] = set()
        self.listeners: set[str] = set()
        self.due_at_us: int | None = None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement that sees everything inserted so far."""
        if self._rows:
            self.flush()
        return self._connection.execute(sql, parameters)

    def insert(self, queue: str, encoded: bytes, visible_at_us: int = 0, *, message: Message | None = None) -> None:
        """Put an encoded message into a queue, at the latest on `flush`. Raises `BrokerError` if space is short.

        With `message`, which is what `encoded` will be read as, it may go to a subscription of this process at once.
        """
        if self._spare_bytes is None:
            self._spare_bytes = self._free_bytes() - RESERVED_BYTES
        # It is written twice, to the log and from there to the database.
        self._spare_bytes -= 2 * len(encoded)
        if self._spare_bytes < 0:
            raise BrokerError(
                f"no space left for events: the disk's last {RESERVED_BYTES >> 20} MiB are kept "
                "for handling those that wait; free some"
            )
        if message is not None and not visible_at_us and (taker := self._taker_of(queue)) is not None:
            self._handed_rows.append((len(self._rows), taker, message))
            self._rows.append((queue, 0, taker.id, encoded))
            self.took(taker, 1)
            return
        self._rows.append((queue, visible_at_us, None, encoded))
        self.touched.add(queue)
        if visible_at_us:
            self.due_at_us = min(visible_at_us, self.due_at_us or visible_at_us)

    def _taker_of(self, queue: str) -> Taker | None:
        """Return who may have the next message of a queue before it is ready; nobody overtakes what is."""
        takers = self._takers.of(queue)
        if takers:
            self._learn_routes()
        for taker in takers:
            if taker.has_all and taker.room > 0 and taker.id in self._routes.subscriptions:
                return taker
        for taker in takers:
            taker.has_all = False
        return None

    def took(self, taker: Taker, count: int) -> None:
        """Note that a subscription is handed messages, unless this is rolled back before `keep`."""
        taker.taken += count
        self._taken.append((taker, count))

    @property
    def is_short_of_space(self) -> bool:
        """Whether the disk comes near to where no more events are taken."""
        return self._free_bytes() < 2 * RESERVED_BYTES

    def flush(self) -> None:
        """Insert the rows that are still in memory."""
        rows, self._rows = self._rows, []
        handed_rows, self._handed_rows = self._handed_rows, []
        # Many at once: after each step of a statement the thread waits until the event loop lets it go on.
        at, last_id = 0, 0
        while at < len(rows):
            count = next(count for count in _ROWS_AT_ONCE if at + count <= len(rows))
            inserted = self._connection.execute(_INSERTS[count], [*chain.from_iterable(rows[at : at + count])])
            at, last_id = at + count, inserted.lastrowid or 0
        # Nobody else inserts meanwhile: the ids are in a row.
        first_id = last_id - len(rows) + 1
        for place, taker, message in handed_rows:
            claimed = Claimed(id=first_id + place, deliveries=0, message=message)
            self.handed_over.setdefault(taker, []).append(claimed)

    def queues_of(self, routing_key: str) -> Sequence[str]:
        """Return the queues bound to a routing key; the queue of unrecognized events if there is none."""
        self._learn_routes()
        queues = self._routes.bound_to(routing_key)
        if queues:
            return queues
        unrecognized = queue_name(UNRECOGNIZED)
        if unrecognized not in self._routes.queues:
            self.declare(_UNRECOGNIZED_CONSUMER)
        return (unrecognized,)

    def home_of(self, consumer: str) -> str:
        """Return the queue of a consumer; that of the orphaned if it has none."""
        self._learn_routes()
        queue = queue_name(consumer)
        return queue if queue in self._routes.queues else ORPHANED_QUEUE

    def has_queue(self, queue: str) -> bool:
        """Say whether a queue exists."""
        self._learn_routes()
        return queue in self._routes.queues

    def make_queue(self, name: str) -> None:
        """Make a queue if it is missing."""
        if not self.has_queue(name):
            self.execute("INSERT INTO queues (name) VALUES (?)", (name,))
            self._forget_routes()

    def declare(self, queues: ConsumerQueues) -> None:
        """Make a consumer's queues and bindings as far as they are missing."""
        queue = queue_name(queues.consumer)
        self.make_queue(queue)
        self.make_queue(dead_queue_name(queues.consumer))
        for routing_key in queues.routing_keys:
            self.execute("INSERT OR IGNORE INTO bindings (routing_key, queue) VALUES (?, ?)", (routing_key, queue))
        self._forget_routes()

    def register(self, subscription_id: int, *, owner: str, queue: str) -> None:
        """Add a subscription. All who listen are touched: they have to know each other."""
        self.execute("INSERT INTO subscriptions (id, owner, queue) VALUES (?, ?, ?)", (subscription_id, owner, queue))
        self._forget_routes()
        self._learn_routes()
        self.touched.update(self._routes.listeners)

    def deregister(self, subscription_id: int) -> None:
        """Remove a subscription."""
        self.execute("DELETE FROM subscriptions WHERE id = ?", (subscription_id,))
        self._forget_routes()

    def find_listeners(self) -> None:
        """Note who listens to what was touched. To be called before the commit: who comes later sees what it left."""
        if self.touched:
            self._learn_routes()
            self.listeners.update(*(self._routes.listeners.get(queue, ()) for queue in self.touched))

    def drop(self, consumer: str) -> None:
        """Delete a consumer's queues, their bindings and what is in them; retries that wait are not in them."""
        for queue in (queue_name(consumer), dead_queue_name(consumer)):
            self.execute("DELETE FROM messages WHERE queue = ? AND claimed_by IS NULL AND visible_at_us = 0", (queue,))
            self.execute("DELETE FROM messages WHERE queue = ? AND claimed_by IS NOT NULL", (queue,))
            self.execute("DELETE FROM bindings WHERE queue = ?", (queue,))
            self.execute("DELETE FROM queues WHERE name = ?", (queue,))
            self.touched.add(queue)
        self._forget_routes()

    def keep(self) -> None:
        """Take note that all of it was committed: what is rolled back later is another operation's."""
        self._taken.clear()

    def hand_nothing_over(self) -> None:
        """Take note that all of it was rolled back, and what is done again is to become ready as usual."""
        for taker, count in self._taken:
            taker.taken -= count
        self._taken.clear()
        self.handed_over.clear()
        self._takers = Takers()

    def forget(self) -> None:
        """Forget what was rolled back: rows in memory and routes. Look at the disk's space again."""
        self._rows.clear()
        self._handed_rows.clear()
        self._spare_bytes = None
        self._forget_routes()

    def _learn_routes(self) -> None:
        if not self._knows_routes:
            self._routes.learn()
            self._knows_routes = True

    def _forget_routes(self) -> None:
        self._routes.forget()
        self._knows_routes = False


T = TypeVar("T")
Operation: TypeAlias = Callable[[Transaction], T]

_EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
_LOCK_POLL_S = 0.0005


class Level(IntEnum):
    """What an operation needs of its transaction; a group gets what its most demanding one needs."""

    READ = 0
    #: Committed, and durable with the next commit that is: enough where the loss of it repeats a delivery.
    WRITE = 1
    DURABLE = 2


#: Is told what an operation returned, or why it or its commit failed.
OnCommitted: TypeAlias = Callable[[Any, Exception | None], None]


class _Waiting(NamedTuple):
    level: Level
    operation: Operation[Any]
    on_end: OnCommitted


class Committed(NamedTuple):
    """What a group changed for consumers: see `Transaction`."""

    touched: set[str]
    listeners: set[str]
    due_at_us: int | None
    handed_over: Mapping[Taker, Sequence[Claimed]]


class _Outcome(NamedTuple):
    on_end: OnCommitted
    result: Any
    error: Exception | None


_Group: TypeAlias = list[_Waiting]


class GroupCommit:
    """The thread and its connection. Operations run in the order of `submit`.

    `connect` opens the file; `check` raises `BrokerError` if a commit to it would not last; `free_bytes` tells of
    its disk. All run in the thread.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        check: Callable[[], None],
        free_bytes: Callable[[], int],
    ) -> None:
        self._connect = connect
        self._free_bytes = free_bytes
        self._check = check
        #: The subscriptions that may be handed messages directly.
        self.takers = Takers()
        self._inbox: SimpleQueue[_Group | None] = SimpleQueue()
        self._gathered: _Group = []
        self._to_call: list[Callable[[], None]] = []
        self._is_scheduled = False
        self._on_commit: Callable[[Committed], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._level = Level.DURABLE
        self._is_suspect = False

    @property
    def is_open(self) -> bool:
        """Whether operations are taken."""
        return self._loop is not None

    async def open(self, *, on_commit: Callable[[Committed], None]) -> None:
        """Start the thread; raises what `connect` raises.

        `on_commit` is called on the event loop after each group, with what it changed.
        """
        self._on_commit = on_commit
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._ended = loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(loop, opened, self._ended), daemon=True, name="group-commit"
        )
        self._thread.start()
        try:
            await opened
        except BaseException:
            self._inbox.put(None)
            await asyncio.wait([self._ended])
            self._thread.join()
            raise
        self._loop = loop

    async def close(self) -> None:
        """Run what was submitted, close the connection and end the thread."""
        if self._loop is None or self._thread is None or self._ended is None:
            return
        self._hand_over()
        self._loop = None
        self._inbox.put(None)
        await self._ended
        self._thread.join()

    def submit(self, operation: Operation[T], level: Level) -> "asyncio.Future[T]":
        """Queue an operation; the future ends when its group is committed.

        It fails with `BrokerError` or `sqlite3.Error` if the operation or its commit failed: nothing was changed
        then, as far as the disk's errors can be believed. Raises `BrokerError` if the transport is not open.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.begin(operation, level, partial(_settle_future, future))
        return future

    def begin(self, operation: Operation[Any], level: Level, on_end: OnCommitted) -> None:
        """Queue an operation; `on_end` is called as `submit`'s future ends, once, and never before this returns.

        Raises `BrokerError` if the transport is not open.
        """
        if self._loop is None:
            raise BrokerError("the transport is not open")
        self._schedule_hand_over(self._loop)
        self._gathered.append(_Waiting(level, operation, on_end))

    def before_hand_over(self, call: Callable[[], None]) -> None:
        """Call `call` when what this turn of the loop has gathered is handed over: what it begins is the last of that.

        Raises `BrokerError` if the transport is not open.
        """
        if self._loop is None:
            raise BrokerError("the transport is not open")
        self._schedule_hand_over(self._loop)
        self._to_call.append(call)

    def _schedule_hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        # Everything that the event loop does in this round becomes one hand-over.
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        to_call, self._to_call = self._to_call, []
        for call in to_call:
            call()
        if self._gathered:
            self._inbox.put(self._gathered)
            self._gathered = []
        self._is_scheduled = False

    def _work(
        self, loop: asyncio.AbstractEventLoop, opened: "asyncio.Future[None]", ended: "asyncio.Future[None]"
    ) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - it is raised where `open` waits
            _call(loop, _settle_future, opened, None, error)
            _call(loop, _settle_future, ended, None, None)
            return
        _call(loop, _settle_future, opened, None, None)
        routes = Routes(connection)
        is_last = False
        while not is_last and (group := self._inbox.get()) is not None:
            is_last = self._gather_more(group)
            transaction = Transaction(connection, routes, self.takers, self._free_bytes)
            outcomes = self._run(connection, transaction, group)
            if not _call(loop, self._settle_group, outcomes, _committed(transaction)):
                break
        try:
            connection.close()
        finally:
            _call(loop, _settle_future, ended, None, None)

    def _gather_more(self, group: _Group) -> bool:
        """Take what came meanwhile into the group; say whether the thread was told to end."""
        while True:
            try:
                more = self._inbox.get_nowait()
            except Empty:
                return False
            if more is None:
                return True
            group += more

    def _settle_group(self, outcomes: list[_Outcome], committed: Committed) -> None:
        _settle(outcomes)
        if self._on_commit is not None:
            self._on_commit(committed)

    def _run(self, connection: sqlite3.Connection, transaction: Transaction, group: _Group) -> list[_Outcome]:
        try:
            return self._commit(connection, transaction, group, _apply_all)
        except Exception as error:  # noqa: BLE001 - it is raised where the operations are awaited
            if len(group) > 1 and is_full(error):
                # One of them may have been too large: now each has a transaction of its own.
                return [outcome for waiting in group for outcome in self._run(connection, transaction, [waiting])]
            if len(group) == 1 or is_trouble(error):
                return [_Outcome(waiting.on_end, None, error) for waiting in group]
        # One of them failed. Now each is undone alone.
        try:
            return self._commit(connection, transaction, group, _apply_each)
        except Exception as error:  # noqa: BLE001 - as above
            return [_Outcome(waiting.on_end, None, error) for waiting in group]

    def _commit(
        self,
        connection: sqlite3.Connection,
        transaction: Transaction,
        group: _Group,
        apply: Callable[[Transaction, _Group], list[_Outcome]],
    ) -> list[_Outcome]:
        try:
            self._begin(connection, max(waiting.level for waiting in group))
            outcomes = apply(transaction, group)
            transaction.find_listeners()
            connection.execute("COMMIT")
            transaction.keep()
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and error_code(error) == sqlite3.SQLITE_IOERR:
                self._is_suspect = True
            transaction.hand_nothing_over()
            transaction.forget()
            _roll_back(connection)
            if is_full(error):
                # What the log holds has a place in the database's free pages, if there are any.
                with suppress(sqlite3.Error):
                    connection.execute(_EMPTY_LOG)
            raise
        return outcomes

    def _begin(self, connection: sqlite3.Connection, level: Level) -> None:
        _roll_back(connection)
        if level is Level.READ:
            connection.execute("BEGIN")
            return
        self._check()
        if self._is_suspect:
            self._ensure_topology(connection)
        if level is not self._level:
            connection.execute(f"PRAGMA synchronous = {'FULL' if level is Level.DURABLE else 'NORMAL'}")
            self._level = level
        deadline_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(_LOCK_POLL_S)
            else:
                return

    def _ensure_topology(self, connection: sqlite3.Connection) -> None:
        """Begin a new WAL after an I/O error.

        A failed fsync is not repeated by the next one: pages that it lost would tear the log before everything
        that is written behind them. https://www.sqlite.org/pragma.html#pragma_wal_checkpoint
        """
        is_busy, _, _ = connection.execute(_EMPTY_LOG).fetchone()
        if is_busy:
            raise BrokerError("a disk error is being mended while other processes use the file; it is tried again")
        self._is_suspect = False


def _committed(transaction: Transaction) -> Committed:
    return Committed(transaction.touched, transaction.listeners, transaction.due_at_us, transaction.handed_over)


def _roll_back(connection: sqlite3.Connection) -> None:
    # After some errors SQLite has done it already: https://www.sqlite.org/lang_transaction.html
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _apply_all(transaction: Transaction, group: _Group) -> list[_Outcome]:
    outcomes = [_Outcome(waiting.on_end, waiting.operation(transaction), None) for waiting in group]
    transaction.flush()
    return outcomes


def _apply_each(transaction: Transaction, group: _Group) -> list[_Outcome]:
    outcomes = []
    for waiting in group:
        transaction.execute("SAVEPOINT alone")
        try:
            result = waiting.operation(transaction)
            transaction.flush()
            outcomes.append(_Outcome(waiting.on_end, result, None))
        except Exception as error:
            if is_trouble(error):
                raise
            transaction.forget()
            transaction.execute("ROLLBACK TO alone")
            outcomes.append(_Outcome(waiting.on_end, None, error))
        transaction.execute("RELEASE alone")
    return outcomes


def _settle(outcomes: Iterable[_Outcome]) -> None:
    for on_end, result, error in outcomes:
        try:
            on_end(result, error)
        except Exception:  # noqa: BLE001 - what one of them does is no other's matter
            _log.exception("commit_callback_failed")


def _settle_future(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():  # whoever waited was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> bool:
    """Call a function on the event loop; False if that has ended."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        return False
    return True
