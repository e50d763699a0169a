"""A consumer's hold on its queue, kept through every loss: deliveries in, acknowledgements out."""

import asyncio
from bisect import bisect
from collections import deque
from collections.abc import Awaitable, Iterable
from enum import Enum, auto
from typing import Self

import aiormq
import structlog
from msgspec import Struct

from broker.amqp.connection import (
    CONNECTION_ERRORS,
    Backoff,
    Connection,
    Link,
    cancellation_as_loss,
    close_channel,
    describe,
    loss_of,
    raise_if_cancelled,
)
from broker.amqp.declaring import Declarer
from broker.amqp.headers import read_message
from broker.amqp.inspecting import count
from broker.amqp.plain import PlainDeliveries
from broker.amqp.wire import BODY, DELIVER, HEADER, METHOD, Arrival, Arrivals, ack_frame
from broker.api import Message, OnDelivery, TopologyConflictError
from broker.topology import Topology
from telemetry import metrics

_log = structlog.get_logger()

#: More are not remembered; the oldest are forgotten, and count as crashes again.
MOST = 10_000


class OwnConnectionLosses:
    """Counts by event_id, for one queue; an event that is settled is forgotten.

    The broker counts each return alike, whether the worker died or its connection did. A network that comes and goes
    must not make a dead letter of an event that harms nobody.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def lost(self, event_ids: Iterable[str]) -> None:
        """Take note that the connection was lost before these events were settled."""
        for event_id in event_ids:
            # Anew, so that it is the youngest.
            self._counts[event_id] = self._counts.pop(event_id, 0) + 1
        while len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]

    def settled(self, event_id: str) -> None:
        """Forget an event: what was published of it anew is counted by the broker anew."""
        if self._counts:
            self._counts.pop(event_id, None)

    def count(self, event_id: str) -> int:
        """Return how many of the returns of an event this process has survived."""
        return self._counts.get(event_id, 0)


#: In seconds, for each request of a subscription; the leader of a quorum queue can be in election.
REQUEST_TIMEOUT_S = 15.0


class AmqpDelivery:
    """One hand-over. Implements `broker.Delivery`."""

    __slots__ = ("_acked", "_deliveries", "crashes", "message", "tag", "taken_out")

    def __init__(
        self, deliveries: "ChannelDeliveries", tag: int, message: Message, crashes: int, taken_out: str
    ) -> None:
        self.message = message
        self.crashes = crashes
        self.taken_out = taken_out
        self.tag = tag
        self._deliveries = deliveries
        self._acked: Awaitable[bool] | None = None

    def ack(self) -> Awaitable[bool]:
        """Settle for good. False if the connection was lost meanwhile; a second call returns what the first did."""
        if self._acked is None:
            # A tag acknowledged twice would close the channel.
            self._acked = self._deliveries.ack(self.tag)
        return self._acked


class ChannelDeliveries:
    """One channel's deliveries: at most `prefetch` of them are handed over and unsettled.

    The broker counts anew for every consumer, so what an earlier prefetch let in comes on top. Until that is
    settled, later deliveries are held back here. Acknowledgements of one turn of the event loop leave together.
    """

    def __init__(
        self,
        connection: Connection,
        channel: aiormq.abc.AbstractChannel,
        queue: str,
        on_delivery: OnDelivery,
        own_losses: OwnConnectionLosses,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._on_delivery = on_delivery
        self._own_losses = own_losses
        self._prefetch = 0
        self._consumer_tag: str | None = None
        self._consuming = False
        self._loop = asyncio.get_running_loop()
        self._arriving = Arrivals()
        self._plain = PlainDeliveries(channel.number)
        #: The event_ids of what is not acknowledged, by tags, in the order of their arrival.
        self._unsettled: dict[int, str] = {}
        self._handed_over = 0
        self._held: deque[AmqpDelivery] = deque()
        #: Tags that are acknowledged, and of which that is not written yet.
        self._due: list[int] = []
        self._cancelled = asyncio.Event()
        self._given_up: asyncio.Future[None] = self._loop.create_future()
        #: When the first and the last delivery came, by the loop's clock; the first is None until then.
        self.first_arrival_s: float | None = None
        self.last_arrival_s = self._loop.time()
        self._yes, self._no = (_ended(self._loop, value) for value in (True, False))
        self.reason = "closed"
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        connection.wire.attach(channel.number, self._take, self._take_plain)

    @property
    def is_open(self) -> bool:
        """Whether the broker has this consumer, or would have it with a prefetch above 0."""
        return self._is_connected and self._consuming

    @property
    def is_idle(self) -> bool:
        """Whether it may take deliveries, and has none that is not settled."""
        return self.is_open and self._prefetch > 0 and not self._unsettled

    @property
    def has_unsettled(self) -> bool:
        """Whether a delivery is here that is not settled, whoever holds it."""
        return bool(self._unsettled)

    @property
    def _is_connected(self) -> bool:
        return not (self._given_up.done() or self._channel.is_closed or self._connection.wire.is_lost)

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
            consuming = await self._channel.basic_consume(self._queue, _unused, timeout=REQUEST_TIMEOUT_S)
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
            self.reason = describe(loss_of(closing))
            return False
        closing.cancel()
        return not self._given_up.done()

    def give_up(self, reason: str) -> None:
        """Take no more deliveries, and settle none: they come again. What was acknowledged before is still written."""
        self._write_acks()
        if not self._given_up.done():
            self.reason = reason
            self._given_up.set_result(None)
        self._held.clear()

    def detach(self) -> None:
        """Read nothing more of the channel. What is not settled comes again."""
        self._connection.wire.detach(self._channel.number, self._take)
        # A channel that was closed alone is another matter: its handler may have held a delivery for too long.
        if self._connection.wire.is_lost:
            self._own_losses.lost(self._unsettled.values())
        self._unsettled.clear()

    def ack(self, tag: int) -> Awaitable[bool]:
        """Settle a delivery, with the others of this turn of the loop. False if the channel is lost."""
        if not self._is_connected:
            return self._no
        self._own_losses.settled(self._unsettled.pop(tag))
        if not self._due:
            self._loop.call_soon(self._write_acks)
        self._due.append(tag)
        self._handed_over -= 1
        if self._held:
            self._hand_over()
        return self._yes

    def _write_acks(self) -> None:
        """Acknowledge in one frame all up to the first that is not settled, and one by one what overtook it."""
        if not self._due:
            return
        due, self._due = sorted(self._due), []
        together = bisect(due, next(iter(self._unsettled), due[-1]))
        number = self._channel.number
        frames = [ack_frame(number, due[together - 1], multiple=together > 1)] if together else []
        frames += [ack_frame(number, tag, multiple=False) for tag in due[together:]]
        self._connection.wire.write(b"".join(frames))

    def _on_cancelled(self, frame: object) -> None:
        del frame
        self._consumer_tag = None
        self._consuming = False
        self._cancelled.set()

    def _take(self, kind: int, payload: bytes) -> bool:
        if kind == METHOD:
            if payload[:4] != DELIVER:
                return False
            self._arriving.begin(payload)
        elif kind in (HEADER, BODY):
            arrival = self._arriving.add(kind, payload)
            if arrival is not None and not self._given_up.done():
                self._on_arrival(arrival)
        return True

    def _take_plain(self, data: bytes, at: int, method_end: int) -> int:
        plain = self._plain.read(data, at, method_end)
        if plain is None:
            return 0
        if not self._given_up.done():
            self._on_message(plain.tag, plain.message, 0, "")
        return plain.end

    def _on_arrival(self, arrival: Arrival) -> None:
        message, returns, taken_out = read_message(arrival.body, arrival.properties, arrival.routing_key)
        self._plain.learn(message, arrival.properties, arrival.routing_key)
        self._on_message(arrival.tag, message, returns, taken_out)

    def _on_message(self, tag: int, message: Message, returns: int, taken_out: str) -> None:
        self.last_arrival_s = self._loop.time()
        if self.first_arrival_s is None:
            self.first_arrival_s = self.last_arrival_s
        returns = returns and max(0, returns - self._own_losses.count(message.event_id))
        delivery = AmqpDelivery(self, tag, message, message.crashes + returns, taken_out)
        self._unsettled[tag] = message.event_id
        self._held.append(delivery)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._held and self._handed_over < self._prefetch and not self._given_up.done():
            self._handed_over += 1
            try:
                self._on_delivery(self._held.popleft())
            except Exception:  # noqa: BLE001 - it must not raise; the delivery stays unsettled until the channel ends
                _log.exception("delivery_not_taken", queue=self._queue)


def _ended(loop: asyncio.AbstractEventLoop, value: bool) -> "asyncio.Future[bool]":
    future: asyncio.Future[bool] = loop.create_future()
    future.set_result(value)
    return future


async def _unused(message: object) -> None:
    """Stand where the library wants a callback: deliveries are taken before it sees them."""
    raise AssertionError(f"a delivery went past deliveries: {type(message).__name__}")


class Finding(Enum):
    """Why a consumer should have another channel."""

    #: Events wait, there is room for them here, and they do not come.
    SILENT = auto()
    #: It has nothing to do; if the broker believes otherwise, it learns better.
    DUE = auto()


class Watchdog(Struct, frozen=True, kw_only=True):
    """How closely a consumer is watched.

    One that is idle for `look_after_s` is looked at, and again after `sure_after_s`. A channel is renewed if it had
    deliveries and then none for `renew_idle_after_s`, or at an idle moment after `renew_after_s`.

    It happens to quorum queues around an election of their leader: events wait and none is delivered, or some count as
    delivered that no channel knows of (https://github.com/rabbitmq/rabbitmq-server/issues/15473). The end of the
    channel sets both right. Deliveries that are here are never disturbed: whoever has some is busy, slow or waiting.
    """

    look_after_s: float = 30.0
    sure_after_s: float = 5.0
    renew_idle_after_s: float = 60.0
    renew_after_s: float = 600.0

    async def find(self, connection: Connection, deliveries: ChannelDeliveries, queue: str) -> Finding:
        """Return once something has to be done."""
        loop = asyncio.get_running_loop()
        looked_at_s = 0.0
        while True:
            await asyncio.sleep(self.sure_after_s)
            if not deliveries.is_idle:
                continue
            if self._is_due(deliveries):
                return Finding.DUE
            if loop.time() - max(looked_at_s, deliveries.last_arrival_s) > self.look_after_s:
                looked_at_s = loop.time()
                if await self._is_silent(connection, deliveries, queue):
                    return Finding.SILENT

    def _is_due(self, deliveries: ChannelDeliveries) -> bool:
        if deliveries.first_arrival_s is None:
            return False
        now_s = asyncio.get_running_loop().time()
        age_s, quiet_s = now_s - deliveries.first_arrival_s, now_s - deliveries.last_arrival_s
        return age_s > self.renew_after_s or quiet_s > self.renew_idle_after_s

    async def _is_silent(self, connection: Connection, deliveries: ChannelDeliveries, queue: str) -> bool:
        before_s = deliveries.last_arrival_s
        if not await _has_ready(connection, queue):
            return False
        await asyncio.sleep(self.sure_after_s)
        still_waits = await _has_ready(connection, queue)
        return still_waits and deliveries.is_idle and deliveries.last_arrival_s == before_s


async def _has_ready(connection: Connection, queue: str) -> bool:
    try:
        with cancellation_as_loss():
            counted = await count(connection, queue)
    except CONNECTION_ERRORS:
        # Whoever keeps the connection finds out why.
        return False
    return counted is not None and counted.ready > 0


class AmqpSubscription:
    """Consumes one queue on a channel of its own. Implements `broker.Subscription`."""

    def __init__(
        self,
        link: Link,
        declarer: Declarer,
        topology: Topology,
        queue: str,
        on_delivery: OnDelivery,
        *,
        prefetch: int,
        watchdog: Watchdog,
    ) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        # There from the start: what is counted for the first time must be seen to grow.
        metrics.SILENT_CONSUMERS.labels(self._queue)
        self._watchdog = watchdog
        self._own_losses = OwnConnectionLosses()
        self._deliveries: ChannelDeliveries | None = None
        self._is_renewing = False
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
        # A renewal changes the channel in a moment; nobody need stop because of that.
        is_renewing = self._is_renewing and self._link.is_connected
        return is_renewing or (self._deliveries is not None and self._deliveries.is_open)

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound how many deliveries may be unsettled at once, from now on; 0 stops deliveries."""
        self._prefetch = prefetch
        deliveries = self._deliveries
        if deliveries is not None:
            await self._apply_prefetch(deliveries)

    async def _apply_prefetch(self, deliveries: "ChannelDeliveries") -> None:
        try:
            with cancellation_as_loss():
                async with self._turn:
                    await deliveries.set_prefetch(self._prefetch)
        except CONNECTION_ERRORS as error:
            # It holds when the consumer is back.
            deliveries.give_up(describe(error))

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            try:
                with cancellation_as_loss():
                    await self._consume(connection, backoff)
                if self._is_renewing:
                    continue
            except TopologyConflictError as conflict:
                if self._problem != str(conflict):
                    _log.error("topology_conflict", error=str(conflict))
                self._problem = str(conflict)
            except CONNECTION_ERRORS as error:
                _log.warning("consumer_lost", queue=self._queue, error=describe(error))
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would consume again
                _log.exception("consumer_lost", queue=self._queue)
            self._is_renewing = False
            await backoff.wait()

    async def _consume(self, connection: Connection, backoff: Backoff) -> None:
        """Consume until the channel is lost; a queue that is deleted meanwhile is made anew."""
        if not self._is_renewing:
            await self._declarer.declare(connection, self._topology)
        channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
        deliveries = ChannelDeliveries(connection, channel, self._queue, self._on_delivery, self._own_losses)
        # Now, because deliveries come before the next line returns, and they may lead to another prefetch.
        self._deliveries = deliveries
        watching: asyncio.Task[None] | None = None
        try:
            async with self._turn:
                await deliveries.resume(self._prefetch)
            self._problem = ""
            if not self._is_renewing:
                _log.info("consumer_started", queue=self._queue)
            self._is_renewing = False
            watching = asyncio.create_task(self._watch(connection, deliveries), name=f"amqp watchdog {self._queue}")
            with backoff.working():
                raise_if_cancelled()
                while await deliveries.wait_cancelled():
                    _log.warning("consumer_lost", queue=self._queue, error="cancelled by the broker")
                    await self._declarer.declare(connection, self._topology)
                    async with self._turn:
                        await deliveries.resume(self._prefetch)
                    raise_if_cancelled()
                    _log.info("consumer_started", queue=self._queue)
            if not self._is_renewing:
                _log.warning("consumer_lost", queue=self._queue, error=deliveries.reason)
        finally:
            if watching is not None:
                watching.cancel()
            self._deliveries = None
            deliveries.give_up("closed")
            await close_channel(channel, connection)
            deliveries.detach()

    async def _watch(self, connection: Connection, deliveries: ChannelDeliveries) -> None:
        """Give the channel up when the watchdog says so: another takes its place."""
        while True:
            if await self._watchdog.find(connection, deliveries, self._queue) is Finding.SILENT:
                metrics.SILENT_CONSUMERS.labels(self._queue).inc()
                deliveries.give_up("silent: events wait in the queue and none came")
            else:
                await self._renew(deliveries)

    async def _renew(self, deliveries: ChannelDeliveries) -> None:
        """Let another channel take the place of one without deliveries; a delivery that comes just now stays valid."""
        try:
            with cancellation_as_loss():
                async with self._turn:
                    await deliveries.set_prefetch(0)
                    if deliveries.has_unsettled:
                        await deliveries.set_prefetch(self._prefetch)
                    elif deliveries.is_open:
                        self._is_renewing = True
                        deliveries.give_up("renewed")
        except CONNECTION_ERRORS as error:
            deliveries.give_up(describe(error))
