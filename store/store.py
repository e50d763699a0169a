"""The store: a pool of connections, transactions, and errors that say what is wrong."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sqlalchemy import BigInteger, ClauseElement, Row, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from store.connection import AsyncConnection
from store.drivers import WRITING, driver_for, text_of
from store.errors import Failure, SchemaMismatchError, StoreError, StoreUnavailableError
from store.kept import KeptEvent

#: A statement that takes longer means that the database is not well.
STATEMENT_TIMEOUT_S: Final = 15.0

#: Transactions that another one got in the way of are run this often in all.
MAX_RUNS: Final = 4

Result = TypeVar("Result")


class Store:
    """A database of events, recordings, completions and dead letters.

    `url` is `postgresql+asyncpg://...` or `sqlite+aiosqlite:///path`; another raises `StoreError`. Used as an async
    context manager. Entering needs no database: every operation connects anew if it must, is bounded by
    time-outs, and raises `StoreUnavailableError` while the database is away. `is_direct`: what can be is done past
    SQLAlchemy, with the same result.
    """

    def __init__(self, url: str, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S, is_direct: bool = True) -> None:
        self._given_url = url
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):  # ValueError: a port that is no number
            # Neither the text itself nor what was made of it: it may hold a password.
            raise StoreError("the database's URL cannot be read: it is KIND://USER:PASSWORD@HOST:PORT/NAME") from None
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            # The two characters that cannot stand for themselves, as tiw.settings writes them.
            path = self._url.database.replace("%3F", "?").replace("%25", "%")
            self._url = self._url.set(database=path)
        #: How it is connected to, and what its errors mean.
        self.driver = driver_for(self._url)
        #: What the database does its own way.
        self.dialect = self.driver.dialect
        line = asyncio.Lock()
        self._engine, direct = self.driver.open_engine(self._url, line=line, statement_timeout_s=statement_timeout_s)
        # Where there is one writer at a time and its waiters poll, those of a process stand in line instead.
        self._line = line if self.dialect.has_one_writer else None
        self._direct = direct if is_direct else None

    @property
    def url(self) -> str:
        """The URL with its password: to connect with, not to show."""
        return self._given_url

    @property
    def safe_url(self) -> str:
        """The URL to show: without password and parameters."""
        # Up to the last @: a password may hold one although it should not.
        shown = self._url.set(query={}).render_as_string(hide_password=True)
        return re.sub(r"//([^:@/]*):.*@", r"//\1:***@", shown)

    @property
    def file(self) -> Path | None:
        """The file that this is; None for a server."""
        return Path(self._url.database or "") if self.is_local else None

    @property
    def is_local(self) -> bool:
        """Whether this is a file on this host, and no server."""
        return self.dialect.has_one_writer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._direct is not None:
            await self._direct.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose statements all see the database at one moment.

        Only for work with the database: an OSError or TimeoutError of other work is taken for the database's.
        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing.
        """
        with self._errors_translated():
            async with await self._engine.connect() as connection:
                await self.dialect.begin_reading(connection)
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that is committed at the end, or rolled back by an exception.

        Only for work with the database, as `reading`.
        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing. Another transaction can
        be in the way: prefer `write`, which runs again then.
        """
        with self._errors_translated():
            async with self._transaction() as connection:
                yield connection

    async def write(self, operation: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Run `operation` in a transaction as `writing` does, and anew if another was in its way; see `MAX_RUNS`."""
        with self._errors_translated():
            for run in range(1, MAX_RUNS):
                try:
                    async with self._transaction() as connection:
                        return await operation(connection)
                except self.driver.ERRORS as error:
                    if self.driver.failure_of(error) is not Failure.REPEAT:
                        raise
                await asyncio.sleep(random.uniform(0.01, 0.05) * run)  # noqa: S311 - spreads, hides nothing
            async with self._transaction() as connection:
                return await operation(connection)

    async def apply_directly(self, kept: Mapping[str, KeptEvent]) -> bool:
        """Do what `store.direct.Direct.apply` does; False where the careful way is to be taken.

        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing.
        """
        if self._direct is None:
            return False
        with self._errors_translated():
            try:
                return await self._direct.apply(kept)
            except self.driver.ERRORS as error:
                if self.driver.failure_of(error) is not Failure.REPEAT:
                    raise
                return False

    async def fetch_directly(self, statement: ClauseElement, parameters: Mapping[str, object]) -> list[Any] | None:
        """Do what `store.direct.Direct.fetch` does; None where `write` is to be called instead.

        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing.
        """
        if self._direct is None:
            return None
        with self._errors_translated():
            return await self._direct.fetch(statement, parameters)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            if self._line is not None:
                await stack.enter_async_context(self._line)
            connection = await stack.enter_async_context(await self._engine.connect())
            await connection.execution_options(**{WRITING: True})
            await stack.enter_async_context(connection.begin())
            yield connection

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except self.driver.ERRORS as error:
            said = text_of(self.driver, error)
            match self.driver.failure_of(error):
                case Failure.AWAY | Failure.REPEAT:
                    raise StoreUnavailableError(f"{self.safe_url} cannot be used now: {said}") from error
                case Failure.NO_SCHEMA:
                    raise SchemaMismatchError(
                        f"the tables in {self.safe_url} are not what this version expects ({said}): run `tiw migrate`"
                    ) from error
                case Failure.DEFECT:
                    raise


#: Items in a list of an SQL statement, of up to three values each: PostgreSQL and SQLite take 32,766 values.
MAX_VALUES = 1000


Item = TypeVar("Item")


class now_us(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, in microseconds since the Unix epoch: one clock for all workers."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "postgresql")
def _on_postgresql(*_: object, **__: Any) -> str:
    # Not now(): that is when the transaction began.
    return "(extract(epoch from clock_timestamp()) * 1000000)::bigint"


@compiles(now_us, "sqlite")
def _on_sqlite(*_: object, **__: Any) -> str:
    # unixepoch('subsec') would do, from SQLite 3.42 on.
    return "cast((julianday('now') - 2440587.5) * 86400000000 as integer)"


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Split `items` into runs of at most `size`, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def members(row: Row[Any]) -> dict[str, Any]:
    """Return a row's values by the names of their columns."""
    # Row calls it private because it keeps plain names for columns. The names are a subclass of str.
    return {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001
