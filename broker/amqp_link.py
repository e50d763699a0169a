"""A connection that is kept: to whichever broker answers, and made anew after any loss."""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from typing import Self

import structlog

from broker.amqp_connection import (
    CONNECTION_ERRORS,
    Connection,
    cancellation_as_loss,
    describe,
    raise_if_cancelled,
)
from broker.amqp_endpoints import Brokers, Endpoint
from broker.amqp_pulse import Patience, watch

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 1.0

_log = structlog.get_logger()


class Link:
    """Keeps a connection to one of several brokers until it is closed; an async context manager.

    It connects when `connection` is first asked for. One that is lost, or silent for longer than `patience`, is
    replaced by one to the next broker that answers. Of those that fail, each costs what `Connection.open` takes at
    most; after a round of all it waits for a moment.
    """

    def __init__(self, brokers: Brokers, *, name: str, patience: Patience) -> None:
        self._brokers = brokers
        self._name = name
        self._patience = patience
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def is_connected(self) -> bool:
        """Whether there is an open connection right now."""
        return self._connection is not None and self._connection.is_open

    async def connection(self) -> Connection:
        """Return an open connection, and wait for one as long as that takes."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name=f"amqp {self._name}")
        while self._connection is None or not self._connection.is_open:
            self._changed.clear()
            await self._changed.wait()
        return self._connection

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            for endpoint in self._brokers.in_turn():
                try:
                    with cancellation_as_loss():
                        await self._use(endpoint, backoff)
                except CONNECTION_ERRORS as error:
                    _log.warning(
                        "broker_not_reached", connection=self._name, broker=endpoint.name, error=describe(error)
                    )
                except Exception:  # noqa: BLE001 - whatever it was, nobody else would connect again
                    _log.exception("broker_connection_failed", connection=self._name, broker=endpoint.name)
            await backoff.wait()

    async def _use(self, endpoint: Endpoint, backoff: "Backoff") -> None:
        """Connect, and stay until the connection is lost."""
        log = _log.bind(connection=self._name, broker=endpoint.name)
        connection = await Connection.open(endpoint, name=self._name, resolver=self._brokers.resolver)
        log.info("broker_connected", version=connection.version)
        watching = asyncio.create_task(watch(connection, self._patience), name=f"amqp pulse {self._name}")
        try:
            raise_if_cancelled()
            self._brokers.note_working(endpoint)
            self._connection = connection
            self._changed.set()
            with backoff.working():
                log.warning("broker_lost", error=await connection.wait_closed())
        finally:
            self._connection = None
            watching.cancel()
            await connection.close()


class Backoff:
    """Waits longer from failure to failure, up to a cap, and starts anew after what worked for a while."""

    def __init__(self) -> None:
        self._wait_s = FIRST_BACKOFF_S

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Measure how long the work inside lasts."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - start_s > LONGEST_BACKOFF_S:
                self._wait_s = FIRST_BACKOFF_S

    async def wait(self) -> None:
        """Wait before the next try; not all who lost the same broker return at the same moment."""
        await asyncio.sleep(self._wait_s * random.uniform(0.5, 1))  # noqa: S311 - spreads, hides nothing
        self._wait_s = min(2 * self._wait_s, LONGEST_BACKOFF_S)
