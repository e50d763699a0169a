"""A file of SQLite through aiosqlite: connecting, and what its errors mean."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError

from store.connection import AsyncEngine
from store.direct.sqlite import SqliteDirect
from store.drivers.driver import WRITING, failure_without_code, is_out_of_reach, pool_options
from store.errors import Failure
from store.statements import Dialect, sqlite

dialect: Dialect = sqlite

ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError)

#: How long a connection waits for another's lock before it says "database is locked".
BUSY_TIMEOUT_S: Final = 5.0


def open_engine(url: URL, *, line: asyncio.Lock, statement_timeout_s: float) -> tuple[AsyncEngine, SqliteDirect]:
    """See `Driver`: a statement takes as long as it takes."""
    del statement_timeout_s
    engine = AsyncEngine(create_engine(url, **pool_options(), connect_args={"timeout": BUSY_TIMEOUT_S}))
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
    return engine, SqliteDirect(path, line=line, busy_timeout_s=BUSY_TIMEOUT_S)


# https://www.sqlite.org/rescode.html, the primary codes
_REPEAT_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_AWAY_CODES = frozenset(
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
    """See `Driver`."""
    cause = cause_of(error)
    if not isinstance(cause, sqlite3.Error):
        return Failure.AWAY if is_out_of_reach(cause) else failure_without_code(error, cause)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _REPEAT_CODES:
        return Failure.REPEAT
    if code in _AWAY_CODES:
        return Failure.AWAY
    is_schema = str(cause).startswith(("no such table", "no such column")) or "has no column named" in str(cause)
    return Failure.NO_SCHEMA if is_schema else Failure.DEFECT


def cause_of(error: BaseException) -> BaseException:
    """See `Driver`."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
