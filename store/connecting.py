"""The store: a pool of connections, transactions, and errors that say what is wrong."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final, Self, TypeVar

from sqlalchemy import make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import Table

from store.engine import WRITING, create_engine
from store.errors import SchemaMismatchError, StoreError, StoreUnavailableError
from store.failures import DATABASE_ERRORS, Failure, failure_of, text_of

#: A statement that takes longer means that the database is not well.
STATEMENT_TIMEOUT_S: Final = 15.0

#: Transactions that another one got in the way of are run this often in all.
MAX_RUNS: Final = 4

Result = TypeVar("Result")


class Store:
    """A database of events, recordings, completions and dead letters.

    `url` is `postgresql+asyncpg://...` or `sqlite+aiosqlite:///path`; another raises `StoreError`. Used as an async
    context manager. Entering needs no database: every operation connects anew if it must, is bounded by
    time-outs, and raises `StoreUnavailableError` while the database is away.
    """

    def __init__(self, url: str, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> None:
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):  # ValueError: a port that is no number
            # Neither the text itself nor what was made of it: it may hold a password.
            raise StoreError("the database's URL cannot be read: it is KIND://USER:PASSWORD@HOST:PORT/NAME") from None
        self._engine = create_engine(self._url, statement_timeout_s=statement_timeout_s)
        # SQLite has one writer at a time, and its waiters poll. Within a process they stand in line instead.
        self._line = asyncio.Lock() if self.is_sqlite else None

    @property
    def url(self) -> str:
        """The URL with its password: to connect with, not to show."""
        return self._url.render_as_string(hide_password=False)

    @property
    def safe_url(self) -> str:
        """The URL to show: without password and parameters."""
        return self._url.set(query={}).render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self._url.get_backend_name() == "sqlite"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose statements all see the database at one moment.

        Only for work with the database: an OSError or TimeoutError of other work is taken for the database's.
        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing.
        """
        with self._errors_translated():
            async with self._engine.connect() as connection:
                if not self.is_sqlite:
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
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
                except DATABASE_ERRORS as error:
                    if failure_of(error) is not Failure.REPEAT:
                        raise
                await asyncio.sleep(random.uniform(0.01, 0.05) * run)  # noqa: S311 - spreads, hides nothing
            async with self._transaction() as connection:
                return await operation(connection)

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Return an INSERT that knows ON CONFLICT, which SQLAlchemy has once per database."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with AsyncExitStack() as stack:
            if self._line is not None:
                await stack.enter_async_context(self._line)
            connection = await stack.enter_async_context(self._engine.connect())
            await connection.execution_options(**{WRITING: True})
            await stack.enter_async_context(connection.begin())
            yield connection

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except DATABASE_ERRORS as error:
            match failure_of(error):
                case Failure.AWAY | Failure.REPEAT:
                    raise StoreUnavailableError(f"{self.safe_url} cannot be used now: {text_of(error)}") from error
                case Failure.NO_SCHEMA:
                    raise SchemaMismatchError(
                        f"the tables in {self.safe_url} are not what this version expects ({text_of(error)}): "
                        "run `tiw migrate`"
                    ) from error
                case Failure.DEFECT:
                    raise
