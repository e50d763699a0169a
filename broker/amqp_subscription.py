"""A consumer's hold on its queue, kept through every loss."""

import asyncio
from collections import deque
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
from broker.amqp_headers import from_properties, returns
from broker.amqp_topology import Declarer
from broker.errors import TopologyConflictError
from broker.message import Message
from broker.protocol import OnDelivery
from broker.topology import Topology

#: In seconds, for each request of a subscription; the leader of a quorum queue can be in election.
REQUEST_TIMEOUT_S = 15.0
ACK_TIMEOUT_S = 10.0

_log = structlog.get_logger()


class AmqpSubscription:
    """Consumes one queue on a channel of its own. Implements `broker.Subscription`."""

    def __init__(
        self, link: Link, declarer: Declarer, topology: Topology, queue: str, on_delivery: OnDelivery, *, prefetch: int
    ) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._intake: _Intake | None = None
        self._turn = asyncio.Lock()
        self._problem = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"amqp consumer {self._queue}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer right now (a prefetch of 0 counts as consuming)."""
        return self._intake is not None and self._intake.is_open

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound how many deliveries may be unsettled at once, from now on; 0 stops the intake."""
        self._prefetch = prefetch
        intake = self._intake
        if intake is not None:
            await self._apply_prefetch(intake)

    async def _apply_prefetch(self, intake: "_Intake") -> None:
        try:
            with cancellation_as_loss():
                async with self._turn:
                    await intake.set_prefetch(self._prefetch)
        except CONNECTION_ERRORS as error:
            # It holds when the consumer is back.
            intake.give_up(describe(error))

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            try:
                with cancellation_as_loss():
                    await self._consume(connection, backoff)
            except TopologyConflictError as conflict:
                if self._problem != str(conflict):
                    _log.error("topology_conflict", error=str(conflict))
                self._problem = str(conflict)
            except CONNECTION_ERRORS as error:
                _log.warning("consumer_lost", queue=self._queue, error=describe(error))
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would consume again
                _log.exception("consumer_lost", queue=self._queue)
            await backoff.wait()

    async def _consume(self, connection: Connection, backoff: Backoff) -> None:
        """Consume until the channel is lost; a queue that is deleted meanwhile is made anew."""
        await self._declarer.declare(connection, self._topology)
        channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
        intake = _Intake(connection, channel, self._queue, self._on_delivery)
        # Now, because deliveries come before the next line returns, and they may lead to another prefetch.
        self._intake = intake
        try:
            async with self._turn:
                await intake.resume(self._prefetch)
            self._problem = ""
            _log.info("consumer_started", queue=self._queue)
            with backoff.working():
                raise_if_cancelled()
                while await intake.wait_cancelled():
                    _log.warning("consumer_lost", queue=self._queue, error="cancelled by the broker")
                    await self._declarer.declare(connection, self._topology)
                    async with self._turn:
                        await intake.resume(self._prefetch)
                    raise_if_cancelled()
                    _log.info("consumer_started", queue=self._queue)
            _log.warning("consumer_lost", queue=self._queue, error=intake.reason)
        finally:
            self._intake = None
            intake.give_up("closed")
            await close_channel(channel, connection)


class AmqpDelivery:
    """One hand-over. Implements `broker.Delivery`."""

    def __init__(self, intake: "_Intake", message: Message, *, returns: int, tag: int) -> None:
        self.message = message
        self.crashes = message.crashes + returns
        self._intake = intake
        self._tag = tag
        self._acked: bool | None = None

    async def ack(self) -> bool:
        """Settle for good. False if the connection was lost meanwhile; a second call returns what the first did."""
        if self._acked is None:
            # A tag acknowledged twice would close the channel.
            self._acked = True
            self._acked = await self._intake.ack(self._tag)
        return self._acked


class _Intake:
    """One channel's deliveries: at most `prefetch` of them are handed over and unsettled.

    The broker counts anew for every consumer, so what an earlier prefetch let in comes on top. Until that is
    settled, later deliveries are held back here.
    """

    def __init__(
        self, connection: Connection, channel: aiormq.abc.AbstractChannel, queue: str, on_delivery: OnDelivery
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = 0
        self._consumer_tag: str | None = None
        self._consuming = False
        self._unsettled = 0
        self._held: deque[AmqpDelivery] = deque()
        self._cancelled = asyncio.Event()
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reason = "closed"
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)

    @property
    def is_open(self) -> bool:
        """Whether the broker has this consumer, or would have it with a prefetch above 0."""
        return (
            self._connection.is_open and not self._channel.is_closed and not self._given_up.done() and self._consuming
        )

    async def set_prefetch(self, prefetch: int) -> None:
        """Consume with another bound; 0: not at all."""
        if prefetch == self._prefetch or not self._consuming:
            return
        tag, self._consumer_tag = self._consumer_tag, None
        if tag is not None:
            await self._channel.basic_cancel(tag, timeout=REQUEST_TIMEOUT_S)
        await self.resume(prefetch)

    async def resume(self, prefetch: int) -> None:
        """Consume, for the first time or again after the broker cancelled: what is unsettled can still be settled."""
        self._cancelled.clear()
        self._prefetch = prefetch
        if self._prefetch > 0:
            await self._channel.basic_qos(prefetch_count=self._prefetch, timeout=REQUEST_TIMEOUT_S)
            consuming = await self._channel.basic_consume(self._queue, self._on_message, timeout=REQUEST_TIMEOUT_S)
            self._consumer_tag = consuming.consumer_tag
        self._consuming = not self._cancelled.is_set()
        self._hand_over()

    async def wait_cancelled(self) -> bool:
        """Return True once the broker cancelled the consumer; False, with a `reason`, once the channel is lost."""
        closing = self._channel.closing
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait((closing, cancelled, self._given_up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        if closing.done():
            self.reason = describe(None if closing.cancelled() else closing.exception())
            return False
        closing.cancel()
        return not self._given_up.done()

    def give_up(self, reason: str) -> None:
        """Take no more deliveries, and settle none: they come again."""
        if not self._given_up.done():
            self.reason = reason
            self._given_up.set_result(None)
        self._held.clear()

    async def ack(self, tag: int) -> bool:
        """Settle a delivery. False if the channel is lost."""
        if self._given_up.done() or self._channel.is_closed:
            return False
        try:
            with cancellation_as_loss():
                async with asyncio.timeout(ACK_TIMEOUT_S):
                    await self._channel.basic_ack(tag)
        except TimeoutError:
            self._connection.abort()
            return False
        except CONNECTION_ERRORS:
            return False
        self._unsettled -= 1
        self._hand_over()
        return True

    def _on_cancelled(self, frame: object) -> None:
        del frame
        self._consumer_tag = None
        self._consuming = False
        self._cancelled.set()

    async def _on_message(self, delivered: aiormq.abc.DeliveredMessage) -> None:
        if self._given_up.done():
            return
        properties = delivered.header.properties
        message = from_properties(delivered.body, properties, delivered.routing_key or "")
        tag = delivered.delivery_tag
        if tag is None:
            return
        self._held.append(AmqpDelivery(self, message, returns=returns(properties), tag=tag))
        self._hand_over()

    def _hand_over(self) -> None:
        while self._held and self._unsettled < self._prefetch and not self._given_up.done():
            self._unsettled += 1
            try:
                self._on_delivery(self._held.popleft())
            except Exception:  # noqa: BLE001 - it must not raise; the delivery stays unsettled until the channel ends
                _log.exception("delivery_not_taken", queue=self._queue)
