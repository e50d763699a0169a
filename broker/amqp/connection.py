"""A connection that is kept: opened, closed, checked for life, and made anew after any loss.

Heartbeats alone tell late: several may be missing before that means anything. So whoever hears nothing for a moment
asks for something that a broker answers at once: a channel of its own waits for no queue and no disk.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine, Iterator
from typing import Any, Self

import aio_pika
import aiormq
import structlog
from msgspec import Struct

from broker.amqp.endpoints import Brokers, Endpoint, Resolver
from broker.amqp.wire import Wire

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
        except BaseException as error:
            wire.abort()
            await pika.close()
            if wire.refusal is not None and isinstance(error, aiormq.AMQPError):
                # The library names the frame that it had not expected, not what the broker says in it.
                raise aiormq.ConnectionClosed(*wire.refusal) from error
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


#: A broker that is blocked reads no question, but sends its heartbeats: this is for more than three of them.
BLOCKED_SILENCE_S = 16.0


class Patience(Struct, frozen=True, kw_only=True):
    """How long a connection may be silent before it is asked for an answer, and how long that may then take."""

    ask_after_s: float
    answer_within_s: float


#: Callbacks wait for what is published, and have another way: another broker, or the spool.
PUBLISHING = Patience(ask_after_s=1.5, answer_within_s=3.0)

#: A connection that is given up returns its deliveries, each counted as a crash: not for a moment's silence.
CONSUMING = Patience(ask_after_s=4.0, answer_within_s=8.0)


async def watch(connection: Connection, patience: Patience) -> None:
    """End `connection`, and return, once it gives no answer; anything that arrives is one.

    Time in which the event loop stands still does not count.
    """
    wire = connection.wire
    channel: aiormq.abc.AbstractChannel | None = None
    asking: asyncio.Task[aiormq.abc.AbstractChannel | None] | None = None
    try:
        while True:
            if await wire.hears(within_s=patience.ask_after_s):
                continue
            if wire.is_blocked:
                answered = await wire.hears(within_s=BLOCKED_SILENCE_S)
            else:
                if asking is None or asking.done():
                    channel = asking.result() if asking is not None else None
                    asking = asyncio.create_task(_ask(connection, channel), name="amqp question")
                answered = await wire.hears(within_s=patience.answer_within_s)
            if not answered:
                connection.abort("it is silent and answers no question")
                return
    finally:
        if asking is not None:
            asking.cancel()


async def _ask(connection: Connection, channel: aiormq.abc.AbstractChannel | None) -> aiormq.abc.AbstractChannel | None:
    """Ask for what changes nothing and must be answered; return the channel for the next question."""
    try:
        with cancellation_as_loss():
            if channel is None or channel.is_closed:
                return await connection.amqp.channel(publisher_confirms=False)
            await channel.basic_qos(prefetch_count=0)
    except CONNECTION_ERRORS as error:
        _log.debug("question_failed", error=describe(error))
    return channel


FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 1.0


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
        #: Why there is no connection, in the words of the broker that was tried last; empty before the first try.
        self.problem = ""
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
                    self.problem = describe(error)
                    _log.warning("broker_not_reached", connection=self._name, broker=endpoint.name, error=self.problem)
                except Exception:  # noqa: BLE001 - whatever it was, nobody else would connect again
                    _log.exception("broker_connection_failed", connection=self._name, broker=endpoint.name)
            await backoff.wait()

    async def _use(self, endpoint: Endpoint, backoff: "Backoff") -> None:
        """Connect, and stay until the connection is lost."""
        log = _log.bind(connection=self._name, broker=endpoint.name)
        connection = await Connection.open(endpoint, name=self._name, resolver=self._brokers.resolver)
        log.info("broker_connected", version=connection.version)
        watching = asyncio.create_task(watch(connection, self._patience), name=f"amqp liveness {self._name}")
        try:
            raise_if_cancelled()
            self._brokers.note_working(endpoint)
            self._connection = connection
            self._changed.set()
            with backoff.working():
                self.problem = await connection.wait_closed()
                log.warning("broker_lost", error=self.problem)
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
