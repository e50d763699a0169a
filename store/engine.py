"""SQLAlchemy engines, set up so that what is committed is kept and nothing waits for ever."""

import contextlib
import inspect
import os
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from store.errors import StoreError

#: Connections per process.
POOL_SIZE = 10

CONNECT_TIMEOUT_S = 5.0

#: How long a SQLite connection waits for another's lock before it says "database is locked".
SQLITE_BUSY_TIMEOUT_S = 5.0

#: Execution option of a transaction that is going to write.
WRITING = "tiw_writing"


def create_engine(url: URL, *, statement_timeout_s: float) -> AsyncEngine:
    """Return an engine for `sqlite+aiosqlite` or `postgresql+asyncpg`; connects to nothing yet.

    Raises `StoreError` for another kind of URL, or one with parameters that the driver does not know.
    """
    if url.drivername == "sqlite+aiosqlite" and url.database and url.database != ":memory:":
        return _sqlite(url)
    if url.drivername == "postgresql+asyncpg":
        return _postgresql(url, statement_timeout_s)
    raise StoreError(
        f"{url.drivername!r} is not a database that the store can use: "
        "set postgresql+asyncpg://USER:PASSWORD@HOST/NAME or sqlite+aiosqlite:///PATH"
    )


def _postgresql(url: URL, statement_timeout_s: float) -> AsyncEngine:
    unknown = sorted(url.query.keys() - inspect.signature(asyncpg.connect).parameters.keys())
    if unknown:
        raise StoreError(f"the database's URL has parameters that asyncpg does not know: {unknown}; for TLS use ssl=")
    return create_async_engine(
        url,
        **_common(),
        pool_pre_ping=True,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            # The server gives up first, so that the connection stays usable; the client's own time-out is for a
            # server that does not answer at all.
            "command_timeout": statement_timeout_s + 1,
            "server_settings": {
                "application_name": "tiw",
                "statement_timeout": str(round(statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": str(round(statement_timeout_s * 4000)),
            },
        },
    )


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

    def set_up(connection: Any, _: object) -> None:
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
