"""What a driver's error means: the database is away, its tables are not ours, or the code is wrong."""

import sqlite3
from enum import Enum, auto

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

#: What a database that cannot be used now may raise, also before SQLAlchemy sees a connection.
DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, sqlite3.Error, OSError, TimeoutError)


class Failure(Enum):
    """What to do about an error."""

    AWAY = auto()
    REPEAT = auto()
    NO_SCHEMA = auto()
    DEFECT = auto()


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_REPEAT_SQLSTATES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "0A000",  # cached plan must not change result type: a migration ran meanwhile
    }
)
_AWAY_SQLSTATE_CLASSES = (
    "08",  # connection exception
    "25006",  # read_only_sql_transaction: this server is a standby now
    "25P03",  # idle_in_transaction_session_timeout
    "28",  # invalid authorization: the operator mends it without a restart of ours
    "3D",  # the database does not exist (yet)
    "42501",  # insufficient_privilege: the operator mends it too
    "53",  # insufficient resources: connections, disk, memory
    "55P03",  # lock_not_available
    "57",  # operator intervention: shutdown, start-up, cancelled by a time-out
    "58",  # system error
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
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate:
        return _postgresql_failure(sqlstate)
    # asyncpg's InterfaceError has no SQLSTATE: a connection that was closed under a statement, or a wrong call.
    is_closed = isinstance(error, DBAPIError) and error.connection_invalidated
    return Failure.AWAY if is_closed or "clos" in str(cause) else Failure.DEFECT


def text_of(error: BaseException) -> str:
    """Return the first line of what the driver said: no statement, no parameters, no values of rows."""
    cause = _driver_error(error)
    return str(cause).partition("\n")[0] or type(cause).__name__


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
