"""One AMQP connection: opened, closed, and what its failures are called."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any, Self

import aio_pika
import aiormq
import structlog

from broker.amqp_endpoints import Endpoint
from broker.amqp_resolving import Resolver
from broker.amqp_wire import Wire

#: How long each step of connecting may take: the name, the socket, TLS, each word of the handshake.
SILENCE_TIMEOUT_S = 3.5
#: For all steps together: a broker with a lot to do may answer each of them late.
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0

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
        self._aborted = ""

    @classmethod
    async def open(cls, endpoint: Endpoint, *, name: str, resolver: Resolver | None = None) -> Self:
        """Connect, or give up after `SILENCE_TIMEOUT_S` without progress. Raises one of `CONNECTION_ERRORS`."""
        wire = Wire(resolver)
        pika = aio_pika.Connection(endpoint.url, client_properties={"connection_name": f"tiw {name}"})
        pika.kwargs["transport_factory"] = wire
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await _while_heard(pika.connect(), wire)
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
        return self._aborted or describe(loss_of(closing))

    def abort(self, reason: str = "") -> None:
        """End it at once: the socket goes, and everything that waits on it fails."""
        self._aborted = self._aborted or reason
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


async def _while_heard(connecting: Coroutine[Any, Any, None], wire: Wire) -> None:
    """Connect for as long as that makes progress."""
    task = asyncio.create_task(connecting, name="amqp connect")
    task.add_done_callback(let_fail)
    try:
        while not task.done():
            heard = asyncio.create_task(wire.hears(within_s=SILENCE_TIMEOUT_S))
            try:
                await asyncio.wait((task, heard), return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and not heard.result():
                    raise TimeoutError(f"no answer for {SILENCE_TIMEOUT_S:g} s")
            finally:
                heard.cancel()
        task.result()
    finally:
        if not task.done():
            wire.abort()
            task.cancel()


def let_fail(task: "asyncio.Task[None]") -> None:
    """Let asyncio not complain of an error that comes after nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


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
