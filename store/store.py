"""The store: a pool of connections, transactions, and errors that say what is wrong.

StoreError
├── StoreUnavailableError   the database does not answer now; the same call may succeed later
└── SchemaMismatchError     the database has no tables, older or too new ones; waiting or `tiw migrate` mends it
"""

import asyncio
import contextlib
import os
import random
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import asyncpg
import msgspec
import structlog
from sqlalchemy import (
    URL,
    BigInteger,
    ClauseElement,
    Connection,
    Row,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from store.direct import Direct
from store.direct.postgresql import PostgresDirect
from store.direct.sqlite import SqliteDirect
from store.kept import KeptEvent
from store.statements import DIALECTS


class StoreError(Exception):
    """Raised when the store cannot do what was asked; root of this package's errors."""


class StoreUnavailableError(StoreError):
    """Raised when the database cannot be reached, is busy beyond patience, full or broken.

    Nothing was changed, or all of it was: every operation is one transaction and may be repeated.
    """


class SchemaMismatchError(StoreError):
    """Raised when the tables are not those that this version works with; says which way and what to do."""


_log = structlog.get_logger()

#: Connections per process, those of the direct way among them.
POOL_SIZE = 10

CONNECT_TIMEOUT_S = 5.0

#: How long a SQLite connection waits for another's lock before it says "database is locked".
SQLITE_BUSY_TIMEOUT_S = 5.0

#: Execution option of a transaction that is going to write.
WRITING = "tiw_writing"


def create_engine(url: URL, *, statement_timeout_s: float) -> tuple[AsyncEngine, Direct | None]:
    """Return an engine for `sqlite+aiosqlite` or `postgresql+asyncpg`, and the direct way that shares its connections.

    Connects to nothing yet. Raises `StoreError` for another kind of URL, or one with parameters that the driver does
    not know.
    """
    if url.drivername == "sqlite+aiosqlite" and url.database and url.database != ":memory:":
        return _sqlite(url), None
    if url.drivername == "postgresql+asyncpg":
        return _postgresql(url, statement_timeout_s)
    raise StoreError(
        f"{url.drivername!r} is not a database that the store can use: "
        "set postgresql+asyncpg://USER:PASSWORD@HOST/NAME or sqlite+aiosqlite:///PATH"
    )


#: Parameters of a URL that asyncpg wants as numbers: their names there, and what they are.
_NUMBERS: dict[str, tuple[str, type[int] | type[float]]] = {
    "statement_cache_size": ("statement_cache_size", int),
    "max_cached_statement_lifetime": ("max_cached_statement_lifetime", int),
    "max_cacheable_statement_size": ("max_cacheable_statement_size", int),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", int),
    "command_timeout": ("command_timeout", float),
    "timeout": ("timeout", float),
    "connect_timeout": ("timeout", float),
}

#: Parameters of libpq that asyncpg reads from a URL of its own, or hands to the server.
_OF_LIBPQ = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "passfile", "krbsrvname", "gsslib"),
        *("application_name", "options", "target_session_attrs"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)


def _postgresql(url: URL, statement_timeout_s: float) -> tuple[AsyncEngine, Direct | None]:
    """Return an engine for PostgreSQL, or a pooler such as PgBouncer in front of it.

    The URL takes the parameters of libpq that asyncpg knows, those of asyncpg that are numbers, and `pool_size`.
    """
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    unknown = sorted(query.keys() - _NUMBERS.keys() - _OF_LIBPQ - {"ssl", "pool_size"})
    if unknown:
        raise StoreError(
            f"the database's URL has parameters that are not known here: {unknown}; "
            f"known are {', '.join(sorted({*_NUMBERS, *_OF_LIBPQ, 'ssl', 'pool_size'}))}"
        )
    numbers = {argument: _number(query, name, kind) for name, (argument, kind) in _NUMBERS.items() if name in query}
    dsn = {name: value for name, value in query.items() if name in _OF_LIBPQ}
    if "ssl" in query:
        # As SQLAlchemy calls libpq's sslmode.
        dsn.setdefault("sslmode", {"true": "require", "false": "disable"}.get(query["ssl"].lower(), query["ssl"]))
    server_settings = {} if "application_name" in dsn else {"application_name": "tiw"}
    arguments: dict[str, Any] = {
        "dsn": URL.create("postgresql", query=dsn).render_as_string(hide_password=False),
        "timeout": CONNECT_TIMEOUT_S,
        # The server gives up first, so that the connection stays usable; the client's own time-out is for a
        # server that does not answer at all.
        "command_timeout": statement_timeout_s + 1,
        **numbers,
        "server_settings": {
            **server_settings,
            "statement_timeout": str(round(statement_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(round(statement_timeout_s * 4000)),
        },
    }
    common = _common()
    if "pool_size" in query:
        common["pool_size"] = max(1, int(_number(query, "pool_size", int)))
    engine = create_async_engine(url.set(query={}), **common, pool_pre_ping=True, connect_args=arguments)
    pooler = _Pooler(server_settings)
    event.listen(engine.sync_engine, "do_connect", pooler.connect)
    event.listen(engine.sync_engine, "handle_error", pooler.note_error)
    if numbers.get("statement_cache_size") == 0:
        return engine, None  # nothing is to be prepared
    # The other half of the connections stays for everything else.
    return engine, PostgresDirect(engine, is_pooled=lambda: pooler.is_there, most_idle=common["pool_size"] // 2)


def _number(query: Mapping[str, str], name: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(query[name])
    except ValueError:
        raise StoreError(f"the database's URL has a {name} that is no number: correct it") from None


class _Pooler:
    """What stands between us and PostgreSQL, as far as connecting has shown.

    PgBouncer refuses parameters of a session at the start of a connection, and where it pools transactions, one's
    prepared statements are another's: https://www.pgbouncer.org/config.html#ignore_startup_parameters and
    https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#prepared-statement-name-with-pgbouncer. Once either was
    seen, connections are made without both; the client's own time-out then ends a statement that takes too long.
    """

    def __init__(self, server_settings: Mapping[str, str]) -> None:
        self._server_settings = server_settings
        self.is_there = False

    def connect(self, dialect: Any, _: object, arguments: Any, parameters: dict[str, Any]) -> Any:
        """Connect, and once more in the way that a pooler needs."""
        if not self.is_there:
            try:
                return dialect.connect(*arguments, **parameters)
            except (asyncpg.PostgresError, DBAPIError, dialect.dbapi.Error) as error:
                if "startup parameter" not in str(error):
                    raise
                self._found()
        return dialect.connect(
            *arguments,
            **{
                **parameters,
                "server_settings": dict(self._server_settings),
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__tiw_{secrets.token_hex(8)}__",
            },
        )

    def note_error(self, context: Any) -> None:
        """Take note of an error that only a pooler of transactions makes; the connection is not used again.

        Nor is one to a server that is read-only: after a failover the address may lead to another one.
        """
        sqlstate = sqlstate_of(context.original_exception)
        if sqlstate in _POOLER_SQLSTATES:
            self._found()
        if sqlstate in _POOLER_SQLSTATES or sqlstate == _READ_ONLY_SQLSTATE:
            context.is_disconnect = True

    def _found(self) -> None:
        if not self.is_there:
            self.is_there = True
            _log.info("database_pooler_found", consequence="statements are not prepared for the next transaction")


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, **_common(), connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S})
    path = Path(url.database or "")

    def make_private_file(*_: object) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database. A file that is there is not even opened:
        # closing it would drop the locks of this process's other connections, and the next process that leaves
        # would take the journal for its own and delete it: https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def identity() -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def refuse_another_file(_: object, record: Any, __: object) -> None:
        # A backup was put in its place, or it was taken away: what went on being written would be in no file any more.
        if record.info["file"] != identity():
            raise InvalidatePoolError("the database's file is another one")

    def set_up(connection: Any, record: Any) -> None:
        record.info["file"] = identity()
        # Without this the driver begins transactions itself, and only at the first write:
        # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def begin(connection: Connection) -> None:
        # A transaction that begins by reading and then writes fails at once, whatever the busy time-out, if
        # another wrote meanwhile: https://www.sqlite.org/lang_transaction.html
        is_writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    event.listen(engine.sync_engine, "do_connect", make_private_file)
    event.listen(engine.sync_engine, "connect", set_up)
    event.listen(engine.sync_engine, "checkout", refuse_another_file)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _common() -> dict[str, Any]:
    return {
        "pool_size": POOL_SIZE,
        "max_overflow": 0,
        # Parameters are bodies and URLs of videos: they do not belong into a traceback.
        "hide_parameters": True,
        "json_serializer": lambda value: msgspec.json.encode(value).decode(),
        "json_deserializer": msgspec.json.decode,
    }


#: What a database that cannot be used now may raise, also before SQLAlchemy sees a connection.
DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError, TimeoutError)


class Failure(Enum):
    """What to do about an error."""

    AWAY = auto()
    REPEAT = auto()
    NO_SCHEMA = auto()
    DEFECT = auto()


# https://www.postgresql.org/docs/current/errcodes-appendix.html
#: invalid_sql_statement_name, duplicate_prepared_statement: another session's statements are on this connection.
_POOLER_SQLSTATES = frozenset({"26000", "42P05"})
#: read_only_sql_transaction: this server is a standby now
_READ_ONLY_SQLSTATE = "25006"
_REPEAT_SQLSTATES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "0A000",  # cached plan must not change result type: a migration ran meanwhile
        *_POOLER_SQLSTATES,
    }
)
_AWAY_SQLSTATE_CLASSES = (
    "08",  # connection exception
    _READ_ONLY_SQLSTATE,
    "25P03",  # idle_in_transaction_session_timeout
    "28",  # invalid authorization: the operator mends it without a restart of ours
    "3D",  # the database does not exist (yet)
    "3F",  # no schema of the search_path exists
    "42501",  # insufficient_privilege: the operator mends it too
    "53",  # insufficient resources: connections, disk, memory
    "55P03",  # lock_not_available
    "57",  # operator intervention: shutdown, start-up, cancelled by a time-out
    "58",  # system error
    "F0",  # configuration file error
    "XX",  # internal error, a damaged table or index included
)
_NO_SCHEMA_SQLSTATES = frozenset({"42P01", "42703"})  # undefined_table, undefined_column

# https://www.sqlite.org/rescode.html, the primary codes
_REPEAT_SQLITE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_AWAY_SQLITE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


def failure_of(error: BaseException) -> Failure:
    """Say what an error of `DATABASE_ERRORS` means."""
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        return _sqlite_failure(cause)
    if isinstance(cause, OSError | TimeoutError | PoolTimeoutError):
        return Failure.AWAY
    sqlstate = sqlstate_of(cause)
    if sqlstate:
        return _postgresql_failure(sqlstate)
    if isinstance(cause, asyncpg.exceptions.ClientConfigurationError):
        return Failure.AWAY
    # asyncpg's InterfaceError has no SQLSTATE: a connection that was closed under a statement, or a wrong call.
    is_closed = isinstance(error, DBAPIError) and error.connection_invalidated
    return Failure.AWAY if is_closed or "clos" in str(cause) else Failure.DEFECT


def text_of(error: BaseException) -> str:
    """Return the first line of what the driver said: no statement, no parameters, no values of rows."""
    cause = _driver_error(error)
    said = str(cause).partition("\n")[0]
    if not said and isinstance(cause, TimeoutError):
        return "it did not answer in time"
    return said or type(cause).__name__


def sqlstate_of(error: BaseException) -> str | None:
    """Return PostgreSQL's code of an error, or None."""
    return getattr(_driver_error(error), "sqlstate", None)


def _driver_error(error: BaseException) -> BaseException:
    if not isinstance(error, DBAPIError) or error.orig is None:
        return error
    # SQLAlchemy wraps the errors of asyncpg twice.
    return error.orig.__cause__ if isinstance(error.orig.__cause__, asyncpg.PostgresError) else error.orig


def _postgresql_failure(sqlstate: str) -> Failure:
    if sqlstate in _REPEAT_SQLSTATES:
        return Failure.REPEAT
    if sqlstate in _NO_SCHEMA_SQLSTATES:
        return Failure.NO_SCHEMA
    return Failure.AWAY if sqlstate.startswith(_AWAY_SQLSTATE_CLASSES) else Failure.DEFECT


def _sqlite_failure(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _REPEAT_SQLITE:
        return Failure.REPEAT
    if code in _AWAY_SQLITE:
        return Failure.AWAY
    is_schema = str(error).startswith(("no such table", "no such column")) or "has no column named" in str(error)
    return Failure.NO_SCHEMA if is_schema else Failure.DEFECT


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
        self._engine, direct = create_engine(self._url, statement_timeout_s=statement_timeout_s)
        #: What the database does its own way.
        self.dialect = DIALECTS[self._url.get_backend_name()]
        # Where there is one writer at a time and its waiters poll, those of a process stand in line instead.
        self._line = asyncio.Lock() if self.dialect.has_one_writer else None
        if self._line is not None:
            direct = SqliteDirect(Path(self._url.database or ""), line=self._line, busy_timeout_s=SQLITE_BUSY_TIMEOUT_S)
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
            async with self._engine.connect() as connection:
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
                except DATABASE_ERRORS as error:
                    if failure_of(error) is not Failure.REPEAT:
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
            except DATABASE_ERRORS as error:
                if failure_of(error) is not Failure.REPEAT:
                    raise
                return False

    async def fetch_directly(self, statement: ClauseElement, parameters: Mapping[str, object]) -> list[Any] | None:
        """Do what `store.direct.postgresql.PostgresDirect.fetch` does; None where `write` is to be called instead.

        Raises `StoreUnavailableError`, or `SchemaMismatchError` if a table is missing.
        """
        if not isinstance(self._direct, PostgresDirect):
            return None
        with self._errors_translated():
            return await self._direct.fetch(statement, parameters)

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
