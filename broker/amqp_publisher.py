"""Publishes so that a return means durable: persistent, confirmed, and never unroutable."""

import asyncio
from typing import Self

import aiormq
import structlog

from broker.amqp_connection import (
    CONNECTION_ERRORS,
    Backoff,
    Connection,
    Link,
    cancellation_as_loss,
    close_channel,
    describe,
    raise_if_cancelled,
)
from broker.amqp_headers import to_properties
from broker.amqp_topology import Declarer
from broker.errors import NotPublishedError, TopologyConflictError
from broker.message import Message
from broker.topology import Topology

OPEN_TIMEOUT_S = 10.0

_log = structlog.get_logger()


class Publisher:
    """Keeps a channel that does nothing but publish: any refused request would close it for everybody.

    An async context manager; entering returns at once. `topology` is declared before the first publish.
    """

    def __init__(self, link: Link, declarer: Declarer, topology: Topology, *, confirm_timeout_s: float) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._confirm_timeout_s = confirm_timeout_s
        self._channel: _Channel | None = None
        self._opened = asyncio.Event()
        self._problem = "the broker has not been reached yet"
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="amqp publisher")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def is_ready(self) -> bool:
        """Whether there is a channel to publish on, with the topology declared."""
        return self._channel is not None and self._channel.is_open

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""
        await self._open_channel()

    async def publish(self, message: Message, *, exchange: str, routing_key: str, belt: Topology) -> None:
        """Return once the broker keeps `message` in a queue. Raises `NotPublishedError` after the confirm time-out.

        A channel that is lost meanwhile is waited for, and the message published again: at worst it is there twice.
        `belt` is declared if the message cannot be routed because somebody deleted what it needs.
        """
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s
        declared = False
        while True:
            channel = await self._open_channel_by(deadline_s)
            try:
                return await channel.publish(message, exchange, routing_key, deadline_s)
            except (aiormq.PublishError, aiormq.ChannelNotFoundEntity) as error:
                if declared:
                    # Not `from error`: it holds the body, and a traceback would show it.
                    raise NotPublishedError(f"{exchange or routing_key} leads to no queue") from None
                _log.warning("topology_missing", exchange=exchange, routing_key=routing_key)
                declared = True
                await self._mend(channel, belt, error, deadline_s)
            except (aiormq.DeliveryError, aiormq.AMQPChannelError) as error:
                raise NotPublishedError(f"the broker refused the message: {describe(error)}") from None
            except CONNECTION_ERRORS as error:
                self._problem = describe(error)
                channel.give_up()

    async def _mend(self, channel: "_Channel", belt: Topology, error: Exception, deadline_s: float) -> None:
        if isinstance(error, aiormq.ChannelNotFoundEntity):
            # The channel is closed, and declaring the whole is how the next one begins.
            channel.give_up()
        try:
            with cancellation_as_loss():
                async with asyncio.timeout_at(deadline_s):
                    await self._declarer.declare(channel.connection, belt)
        except TopologyConflictError as conflict:
            raise NotPublishedError(str(conflict)) from conflict
        except CONNECTION_ERRORS as lost:
            self._problem = describe(lost)

    async def _open_channel_by(self, deadline_s: float) -> "_Channel":
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._open_channel()
        except TimeoutError:
            raise NotPublishedError(f"not published in {self._confirm_timeout_s:g} s: {self._problem}") from None

    async def _open_channel(self) -> "_Channel":
        while self._channel is None or not self._channel.is_open:
            self._opened.clear()
            await self._opened.wait()
        return self._channel

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            try:
                with cancellation_as_loss():
                    await self._serve(connection, backoff)
                continue
            except TopologyConflictError as conflict:
                if self._problem != str(conflict):
                    _log.error("topology_conflict", error=str(conflict))
                self._problem = str(conflict)
            except CONNECTION_ERRORS as error:
                self._problem = describe(error)
                _log.warning("publish_channel_failed", error=self._problem)
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would open a channel again
                _log.exception("publish_channel_failed")
            await backoff.wait()

    async def _serve(self, connection: Connection, backoff: Backoff) -> None:
        """Declare, open a channel and stay until it is lost or given up."""
        await self._declarer.declare(connection, self._topology)
        amqp = await connection.amqp.channel(publisher_confirms=True, on_return_raises=True, timeout=OPEN_TIMEOUT_S)
        channel = _Channel(connection, amqp)
        self._channel = channel
        self._problem = "the broker does not answer"
        self._opened.set()
        try:
            raise_if_cancelled()
            with backoff.working():
                reason = await channel.wait_lost()
            _log.warning("publish_channel_lost", error=reason)
        finally:
            self._channel = None
            channel.give_up()
            await close_channel(amqp, connection)


class _Channel:
    """A publishing channel and what is not confirmed on it."""

    def __init__(self, connection: Connection, amqp: aiormq.abc.AbstractChannel) -> None:
        self.connection = connection
        self._amqp = amqp
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._unconfirmed: set[asyncio.Task[object]] = set()

    @property
    def is_open(self) -> bool:
        return self.connection.is_open and not self._amqp.is_closed and not self._given_up.done()

    async def wait_lost(self) -> str:
        """Return, with the reason, once nothing should be published here any more."""
        closing = self._amqp.closing
        await asyncio.wait((closing, self._given_up), return_when=asyncio.FIRST_COMPLETED)
        if self._given_up.done():
            closing.cancel()
            return self._given_up.result()
        return describe(None if closing.cancelled() else closing.exception())

    def give_up(self, reason: str = "closed") -> None:
        """Let everything that is not confirmed fail now.

        After a confirm time-out a channel is not to be trusted: on some versions a quorum queue that was cut off
        takes nothing more from it (https://github.com/rabbitmq/rabbitmq-server/pull/14589).
        """
        if not self._given_up.done():
            self._given_up.set_result(reason)
        for confirmation in self._unconfirmed:
            confirmation.cancel()

    async def publish(self, message: Message, exchange: str, routing_key: str, deadline_s: float) -> None:
        """Return when confirmed. Raises what aiormq raises, and `NotPublishedError` if the channel is given up."""
        remaining_s = deadline_s - asyncio.get_running_loop().time()
        if remaining_s <= 0:
            raise NotPublishedError("the time for it was over before it could be sent")
        # A task, because a caller that is cancelled must not stop half a message: it is confirmed unheard.
        confirmation = asyncio.create_task(
            self._amqp.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=routing_key,
                properties=to_properties(message),
                mandatory=True,
            )
        )
        self._unconfirmed.add(confirmation)
        confirmation.add_done_callback(self._forget)
        await asyncio.wait((confirmation,), timeout=remaining_s)
        if not confirmation.done():
            self.give_up("a confirm timed out")
            raise NotPublishedError("the broker did not confirm in time")
        if confirmation.cancelled():
            raise NotPublishedError("the channel was given up before the broker had confirmed")
        confirmation.result()

    def _forget(self, confirmation: "asyncio.Task[object]") -> None:
        self._unconfirmed.discard(confirmation)
        if not confirmation.cancelled():
            confirmation.exception()
