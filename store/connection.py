"""SQLAlchemy's engine and connections for an event loop: what the store uses of `sqlalchemy.ext.asyncio`.

Made as that is made, of one public function that lets code wait which knows nothing of a loop. That package imports the
whole object-relational mapper for sessions that nobody has here, and each process would keep it for ever.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, TypeAlias, TypeVar, overload

from sqlalchemy import Connection, CursorResult, Engine, Executable, PoolProxiedConnection
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import greenlet_spawn

Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

Columns = TypeVar("Columns", bound=tuple[Any, ...])
Result = TypeVar("Result")


class AsyncConnection:
    """A connection from the engine's pool, as an async context manager: leaving it gives it back.

    A method does what that of its name does on `sqlalchemy.Connection`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await _to_its_end(self.close())

    @overload
    async def execute(
        self, statement: TypedReturnsRows[Columns], parameters: Parameters = None
    ) -> CursorResult[Columns]: ...

    @overload
    async def execute(self, statement: Executable, parameters: Parameters = None) -> CursorResult[Any]: ...

    async def execute(self, statement: Executable, parameters: Parameters = None) -> CursorResult[Any]:
        """Execute a statement, once for each of several parameters; all rows are here on return."""
        return await greenlet_spawn(self._connection.execute, statement, parameters)

    async def scalar(self, statement: Executable) -> Any:
        """Execute a statement, and return the first value of its first row; None if there is no row."""
        return (await self.execute(statement)).scalar()

    async def execution_options(self, **options: Any) -> None:
        """Set options for what is executed from now on."""
        await greenlet_spawn(self._connection.execution_options, **options)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        """Begin a transaction that is committed at the end, or rolled back by an exception."""
        transaction = await greenlet_spawn(self._connection.begin)
        try:
            yield
        except BaseException:
            await greenlet_spawn(transaction.__exit__, *sys.exc_info())
            raise
        await greenlet_spawn(transaction.__exit__, None, None, None)

    async def run_sync(self, function: Callable[[Connection], Result]) -> Result:
        """Call a function with the connection beneath: what waits in it does not stop the loop."""
        return await greenlet_spawn(function, self._connection)

    async def get_raw_connection(self) -> PoolProxiedConnection:
        """Return the pool's connection, whose `driver_connection` is the driver's own."""
        return await greenlet_spawn(getattr, self._connection, "connection")

    async def invalidate(self) -> None:
        """Let nobody have the driver's connection again."""
        await greenlet_spawn(self._connection.invalidate)

    async def close(self) -> None:
        """Roll back what was begun, and give the connection back."""
        await greenlet_spawn(self._connection.close)


class AsyncEngine:
    """A pool of connections to a database. Events are listened to on `sync_engine`."""

    def __init__(self, sync_engine: Engine) -> None:
        self.sync_engine = sync_engine

    async def connect(self) -> AsyncConnection:
        """Return a connection, once there is one."""
        return AsyncConnection(await greenlet_spawn(self.sync_engine.connect))

    async def dispose(self) -> None:
        """Close all connections that nobody has now."""
        await greenlet_spawn(self.sync_engine.dispose)


async def _to_its_end(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for what may not be left halfway; a cancellation meanwhile is raised when it is over."""
    task = asyncio.create_task(closing)
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done():
                raise
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled
