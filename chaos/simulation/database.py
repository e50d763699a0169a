"""The store's database in virtual time: its real statements on SQLite, in this thread, with faults between them.

Only the driver is replaced: SQLAlchemy's dialect for aiosqlite gets connections that run each statement at once, take
virtual time to begin and to commit, and fail where the world says so.
https://docs.sqlalchemy.org/en/20/core/events.html#sqlalchemy.events.DialectEvents.do_connect
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import aiosqlite
from sqlalchemy import event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_dbapi

from chaos.simulation.evidence import Story
from chaos.simulation.network import Network
from chaos.simulation.plan import Bug
from chaos.simulation.processes import PROCESS, Process
from chaos.simulation.virtual_time import Clock
from store import Store, migrate

#: How long a writer waits for another, as the real driver does.
BUSY_TIMEOUT_S = 5.0
_BUSY_POLL_S = 0.01

#: From COMMIT until the disk has it.
FSYNC_S = 0.002

_UNIX_EPOCH_JULIAN_DAYS = 2440587.5
_DAY_S = 86_400

_FORGETTING = {Bug.COMPLETIONS_FORGOTTEN: "completed_at_us", Bug.EVENTS_FORGOTTEN: "INTO events"}


class Database:
    """A database server of one world, in a file. `is_away`: it refuses every statement."""

    def __init__(self, path: Path, clock: Clock, network: Network, story: Story, bugs: frozenset[Bug]) -> None:
        self.path = path
        self.clock = clock
        self.network = network
        self.story = story
        self.bugs = bugs
        self.is_away = False

    def store(self) -> "SimulatedStore":
        """Return a store for the process that asks."""
        return SimulatedStore(self)

    def go_away(self) -> None:
        """Refuse everything from now on; what is being committed may have been committed."""
        self.story.tell("database", "away")
        self.is_away = True

    def come_back(self) -> None:
        """Answer again."""
        if self.is_away:
            self.story.tell("database", "back")
            self.is_away = False

    def look(self, query: str, *parameters: object) -> list[Any]:
        """Read what is committed at this moment, from outside of all processes."""
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query, parameters).fetchall()
        finally:
            connection.close()


class SimulatedStore(Store):
    """The real store over a driver in virtual time."""

    def __init__(self, database: Database) -> None:
        # The direct way has a thread and a connection of its own, which know no virtual time.
        super().__init__(f"sqlite+aiosqlite:///{database.path}", is_direct=False)
        process = PROCESS.get()

        def connect(*_: object) -> AsyncAdapt_aiosqlite_connection:
            return AsyncAdapt_aiosqlite_connection(
                AsyncAdapt_aiosqlite_dbapi(aiosqlite, sqlite3),
                _Connection(database, process),  # type: ignore[arg-type]  # as much of it as the adapter uses
            )

        event.listen(self._engine.sync_engine, "do_connect", connect)


class _Connection:
    """As much of `aiosqlite.Connection` as SQLAlchemy's adapter uses."""

    def __init__(self, database: Database, process: Process | None) -> None:
        self.database = database
        self.process = process
        self._conn = sqlite3.connect(database.path, timeout=0, isolation_level=None)
        # One clock for all workers, as on a real server: the virtual one.
        self._conn.create_function("julianday", 1, lambda _: database.clock.time() / _DAY_S + _UNIX_EPOCH_JULIAN_DAYS)
        self._tx = _AtOnce()
        self.statements: list[str] = []
        if process is not None:
            process.on_death.append(self.stop)

    async def __aenter__(self) -> Self:
        return self

    def __await__(self) -> Any:
        yield from ()
        return self

    @property
    def isolation_level(self) -> str | None:
        return self._conn.isolation_level

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        self._conn.create_function(*arguments, **options)

    async def cursor(self) -> "_Cursor":
        return _Cursor(self, self._conn.cursor())

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> "_Cursor":
        cursor = await self.cursor()
        await cursor.execute(statement, parameters)
        return cursor

    async def commit(self) -> None:
        if not self._conn.in_transaction:
            return
        has_written = bool(self.statements)
        if has_written:
            await self._passes("committing")
            await asyncio.sleep(self.database.network.latency_s() + FSYNC_S)
            self._must_answer()
        if any(self._is_forgotten(bug, mark) for bug, mark in _FORGETTING.items()):
            self._conn.rollback()
        self._conn.commit()
        if has_written:
            self.statements.clear()
            await self._passes("committed")
            await asyncio.sleep(self.database.network.latency_s())
            self._must_answer()

    async def rollback(self) -> None:
        self.statements.clear()
        if self.process is None or not self.process.is_dead:
            self._conn.rollback()

    async def close(self) -> None:
        self._conn.close()

    def stop(self) -> None:
        """Close at once, as a server does when its client is gone: what was not committed is rolled back."""
        self._conn.close()

    async def begin(self, statement: str) -> None:
        """Wait for the way to the server, and for other writers."""
        await asyncio.sleep(self.database.network.latency_s())
        self._must_answer()
        deadline_s = self.database.clock.now_s + BUSY_TIMEOUT_S
        while True:
            try:
                self._conn.execute(statement)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or self.database.clock.now_s > deadline_s:
                    raise
                await asyncio.sleep(_BUSY_POLL_S)
            else:
                self.statements.clear()
                return

    def _must_answer(self) -> None:
        if self.database.is_away:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    def _is_forgotten(self, bug: Bug, mark: str) -> bool:
        return bug in self.database.bugs and any(mark in statement for statement in self.statements)

    async def _passes(self, point: str) -> None:
        if self.process is not None:
            await self.process.passes(point)


class _Cursor:
    def __init__(self, connection: _Connection, cursor: sqlite3.Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    async def execute(self, statement: str, parameters: Any = ()) -> None:
        if statement.startswith("BEGIN"):
            await self._connection.begin(statement)
            return
        if statement.startswith("PRAGMA synchronous"):
            # Nobody pulls the plug of this machine: what a crash of the database would lose is decided at COMMIT.
            statement = "PRAGMA synchronous = OFF"
        self._note(statement)
        (row,) = _without_videos([parameters], statement, self._connection.database.bugs)
        self._cursor.execute(statement, row)

    async def executemany(self, statement: str, rows: Sequence[Any]) -> None:
        self._note(statement)
        self._cursor.executemany(statement, _without_videos(rows, statement, self._connection.database.bugs))

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def close(self) -> None:
        self._cursor.close()

    def _note(self, statement: str) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):
            self._connection.statements.append(statement)


class _AtOnce:
    """Where aiosqlite queues what its thread is to do: here it is done."""

    def put_nowait(self, item: tuple["asyncio.Future[Any]", Callable[[], Any]]) -> None:
        future, function = item
        future.set_result(function())


def _without_videos(rows: Sequence[Any], statement: str, bugs: frozenset[Bug]) -> Sequence[Any]:
    """Return rows as they are, unless a bug is planted that spoils recordings."""
    if Bug.RECORDING_SPOILED not in bugs or "recordings" not in statement:
        return rows
    return [
        tuple("[]" if isinstance(value, str) and value.startswith("[{") else value for value in row) for row in rows
    ]


def make_template(path: Path) -> None:
    """Make a database with all tables at `path`, to be copied for each world."""

    async def make() -> None:
        async with Store(f"sqlite+aiosqlite:///{path}") as store:
            await migrate(store)

    asyncio.run(make())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def copy_template(template: Path, path: Path) -> None:
    """Give a world a database of its own."""
    shutil.copyfile(template, path)
