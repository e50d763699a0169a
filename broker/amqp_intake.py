"""One channel's deliveries, from the socket to the consumer and back as acknowledgements."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from itertools import takewhile

import aiormq
import structlog

from broker.amqp_connection import Connection, describe, loss_of
from broker.amqp_frames import BODY, DELIVER, HEADER, METHOD, Arrival, Arrivals, ack_frame
from broker.amqp_headers import read_message
from broker.amqp_survivals import Survivals
from broker.message import Message
from broker.protocol import OnDelivery

#: In seconds, for each request of a subscription; the leader of a quorum queue can be in election.
REQUEST_TIMEOUT_S = 15.0

_log = structlog.get_logger()


class AmqpDelivery:
    """One hand-over. Implements `broker.Delivery`."""

    __slots__ = ("_acked", "_intake", "crashes", "message", "tag")

    def __init__(self, intake: "Intake", message: Message, *, returns: int, tag: int) -> None:
        self.message = message
        self.crashes = message.crashes + returns
        self.tag = tag
        self._intake = intake
        self._acked: Awaitable[bool] | None = None

    def ack(self) -> Awaitable[bool]:
        """Settle for good. False if the connection was lost meanwhile; a second call returns what the first did."""
        if self._acked is None:
            # A tag acknowledged twice would close the channel.
            self._acked = self._intake.ack(self.tag)
        return self._acked


class Intake:
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
        survivals: Survivals,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._on_delivery = on_delivery
        self._survivals = survivals
        self._prefetch = 0
        self._consumer_tag: str | None = None
        self._consuming = False
        self._loop = asyncio.get_running_loop()
        self._arriving = Arrivals()
        #: Tags in the order of their arrival; true for those in `_due`, which are acknowledged and not yet written.
        self._unsettled: dict[int, bool] = {}
        #: The events of these tags.
        self._events: dict[int, str] = {}
        self._handed_over = 0
        self._held: deque[AmqpDelivery] = deque()
        self._due: list[int] = []
        self._cancelled = asyncio.Event()
        self._given_up: asyncio.Future[None] = self._loop.create_future()
        #: When the first and the last delivery came, by the loop's clock; the first is None until then.
        self.first_arrival_s: float | None = None
        self.last_arrival_s = self._loop.time()
        self._yes, self._no = (_ended(self._loop, value) for value in (True, False))
        self.reason = "closed"
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        connection.wire.attach(channel.number, self._take)

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
            self._survivals.lost(self._events.values())
        self._events.clear()

    def ack(self, tag: int) -> Awaitable[bool]:
        """Settle a delivery, with the others of this turn of the loop. False if the channel is lost."""
        if not self._is_connected:
            return self._no
        self._unsettled[tag] = True
        if not self._due:
            self._loop.call_soon(self._write_acks)
        self._due.append(tag)
        self._handed_over -= 1
        self._hand_over()
        return self._yes

    def _write_acks(self) -> None:
        """Acknowledge in one frame all up to the first that is not settled, and one by one what overtook it."""
        if not self._due:
            return
        due, self._due = self._due, []
        together = list(takewhile(self._unsettled.__getitem__, self._unsettled))
        number = self._channel.number
        frames = [ack_frame(number, together[-1], multiple=len(together) > 1)] if together else []
        for tag in together:
            del self._unsettled[tag]
        overtaking = [tag for tag in due if self._unsettled.pop(tag, False)]
        frames += [ack_frame(number, tag, multiple=False) for tag in overtaking]
        for tag in (*together, *overtaking):
            self._survivals.settled(self._events.pop(tag))
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

    def _on_arrival(self, arrival: Arrival) -> None:
        self.last_arrival_s = self._loop.time()
        if self.first_arrival_s is None:
            self.first_arrival_s = self.last_arrival_s
        message, returns = read_message(arrival.body, arrival.properties, arrival.routing_key)
        self._unsettled[arrival.tag] = False
        self._events[arrival.tag] = message.event_id
        returns = max(0, returns - self._survivals.count(message.event_id))
        self._held.append(AmqpDelivery(self, message, returns=returns, tag=arrival.tag))
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
    raise AssertionError(f"a delivery went past the intake: {type(message).__name__}")
