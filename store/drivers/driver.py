"""What both drivers have in common: the functions that each has, and what is alike in them."""

import asyncio
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from store.connection import AsyncEngine
from store.direct import Direct
from store.errors import Failure
from store.statements import Dialect

#: Connections per process, those of the direct way among them.
POOL_SIZE: Final = 10

#: Execution option of a transaction that is going to write.
WRITING: Final = "tiw_writing"


class Driver(Protocol):
    """The functions of `store.drivers.postgresql` and `store.drivers.sqlite`."""

    #: What the database does its own way.
    dialect: Dialect

    #: What is raised where the database cannot be used now, also before SQLAlchemy sees a connection.
    ERRORS: tuple[type[Exception], ...]

    def open_engine(
        self, url: URL, *, line: asyncio.Lock, statement_timeout_s: float
    ) -> tuple[AsyncEngine, Direct | None]:
        """Return an engine, and the direct way, if there is one. Connects to nothing yet.

        Those of this process who write stand in `line` where there is one writer at a time. Raises `StoreError` for a
        URL with parameters that the driver does not know.
        """

    def cause_of(self, error: BaseException) -> BaseException:
        """Return what the driver itself raised."""

    def failure_of(self, error: BaseException) -> Failure:
        """Say what one of `ERRORS` means."""


def text_of(driver: Driver, error: BaseException) -> str:
    """Return the first line of what the driver said: no statement, no parameters, no values of rows."""
    cause = driver.cause_of(error)
    said = str(cause).partition("\n")[0]
    if not said and isinstance(cause, TimeoutError):
        return "it did not answer in time"
    return said or type(cause).__name__


# For the two drivers --------------------------------------------------------------------------------------------------
def pool_options() -> dict[str, Any]:
    """Return arguments of `create_engine`."""
    return {
        "pool_size": POOL_SIZE,
        "max_overflow": 0,
        # Parameters are bodies and URLs of videos: they do not belong into a traceback.
        "hide_parameters": True,
        "json_serializer": lambda value: msgspec.json.encode(value).decode(),
        "json_deserializer": msgspec.json.decode,
    }


def is_out_of_reach(cause: BaseException) -> bool:
    """Say whether the database, or a connection to it, could not be had."""
    return isinstance(cause, OSError | TimeoutError | PoolTimeoutError)


def failure_without_code(error: BaseException, cause: BaseException) -> Failure:
    """Say what an error without a code means: a connection that was closed under a statement, or a wrong call."""
    is_closed = isinstance(error, DBAPIError) and error.connection_invalidated
    return Failure.AWAY if is_closed or "clos" in str(cause) else Failure.DEFECT
