"""One AMQP connection that is kept: connected, watched, and connected again after any loss."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import aio_pika
import aiormq
import structlog

from broker.amqp_endpoints import Endpoint
from broker.amqp_wire import Wire

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 2.0

_LARGEST_FRAME_BYTES = 128 * 1024

#: Everything a connection, channel or socket raises when it fails.
CONNECTION_ERRORS = (aiormq.AMQPError, aiormq.ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)

# This module reports every loss by itself, with host and port only. The library's own records repeat them with
# tracebacks, and its debug records hold bodies.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

_log = structlog.get_logger()


class Connection:
    """An open connection of aio-pika, and a way to end it at once.

    Not its robust one: what a loss takes with it (channels, consumers, what is not confirmed) is built anew here, from
    scratch, so that nothing depends on what could be restored. `amqp` is the connection beneath, for channels.
    """

    def __init__(self, pika: aio_pika.Connection, amqp: aiormq.abc.AbstractConnection, wire: Wire) -> None:
        self._pika = pika
        self.amqp = amqp
        self.wire = wire

    @classmethod
    async def open(cls, endpoint: Endpoint, *, name: str) -> Self:
        """Connect within `CONNECT_TIMEOUT_S`. Raises one of `CONNECTION_ERRORS`."""
        wire = Wire()
        pika = aio_pika.Connection(endpoint.url, client_properties={"connection_name": f"tiw {name}"})
        pika.kwargs["transport_factory"] = wire
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await pika.connect()
            if pika.transport is None:
                raise aiormq.ConnectionClosed(0, "closed at once")  # noqa: TRY301 - ended like any other failure
        except BaseException:
            wire.abort()
            await pika.close()
            raise
        return cls(pika, pika.transport.connection, wire)

    @property
    def version(self) -> str:
        """The broker's version, as it says."""
        return str(self.amqp.server_properties.get("version", ""))

    @property
    def max_frame_bytes(self) -> int:
        """The size of the largest frame that the broker takes."""
        # 0 stands for no limit: https://www.rabbitmq.com/amqp-0-9-1-reference#connection.tune.frame-max
        return self.amqp.connection_tune.frame_max or _LARGEST_FRAME_BYTES

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it yet."""
        return not self.wire.is_lost and self.amqp.is_opened

    async def wait_closed(self) -> str:
        """Return once it is closed, with the reason as far as it is known."""
        closing = self.amqp.closing
        await asyncio.wait((closing,))
        return describe(loss_of(closing))

    def abort(self) -> None:
        """End it at once: the socket goes, and everything that waits on it fails."""
        self.wire.abort()

    async def close(self) -> None:
        """End it in order, or, if the broker does not answer, at once."""
        try:
            with cancellation_as_loss():
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._pika.close(aiormq.ConnectionClosed(0, "closed by this side"))
        except CONNECTION_ERRORS as error:
            _log.debug("connection_close_failed", error=describe(error))
        finally:
            # Closing waits until a peer has taken what is buffered; one that hangs never does.
            self.abort()


class Link:
    """Keeps a connection to the first of several brokers that answers, until it is closed.

    An async context manager. It connects when `connection` is first asked for.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, name: str) -> None:
        self._endpoints = endpoints
        self._name = name
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

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
            for endpoint in self._endpoints:
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
        connection = await Connection.open(endpoint, name=self._name)
        log.info("broker_connected", version=connection.version)
        try:
            raise_if_cancelled()
            self._connection = connection
            self._changed.set()
            with backoff.working():
                log.warning("broker_lost", error=await connection.wait_closed())
        finally:
            self._connection = None
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
        """Wait before the next try."""
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_BACKOFF_S)


async def close_channel(channel: aiormq.abc.AbstractChannel, connection: Connection) -> None:
    """Close a channel; a connection on which that does not work is ended."""
    try:
        with cancellation_as_loss():
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await channel.close(aiormq.ChannelClosed(0, "closed by this side"))
    except TimeoutError:
        connection.abort()
    except CONNECTION_ERRORS as error:
        _log.debug("channel_close_failed", error=describe(error))


@contextlib.contextmanager
def cancellation_as_loss() -> Iterator[None]:
    """Tell a lost connection from a cancelled task.

    aiormq fails those who wait on what it closes with CancelledError at times; taken for a cancellation it would end
    the task that was to connect again. Only a cancellation of the current task is one.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise aiormq.ConnectionClosed(0, "closed while in use") from None


def raise_if_cancelled() -> None:
    """Raise the cancellation of the current task that a call of aiormq has swallowed.

    To be called before waiting for what may never happen. asyncio.wait_for, which aiormq waits with, loses a
    cancellation that meets its result, up to Python 3.11: https://github.com/python/cpython/issues/86296
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def loss_of(closing: "asyncio.Future[Any]") -> BaseException | None:
    """Return why a connection or channel closed: `closing` is the library's future for that, and done."""
    return None if closing.cancelled() else closing.exception()


def describe(error: BaseException | None) -> str:
    """Return what a person can use of a failure, without addresses of ours and without message bodies."""
    if error is None:
        return "closed"
    if isinstance(error, aiormq.DeliveryError):
        return type(error).__name__
    with contextlib.suppress(TypeError):
        if isinstance(error, aiormq.AMQPError):
            return str(error.reason % error.args)
    return str(error) or type(error).__name__
