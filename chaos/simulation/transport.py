"""The transport of one simulated process: `broker.Transport` over sessions with the broker in memory.

It keeps what the real one promises, and is as unkind as that may be: a confirm that comes too late or never, a publish
repeated because its connection was lost, an acknowledgement that is lost after it was taken for made.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self

from broker import (
    DEFAULT_CONFIRM_TIMEOUT_S,
    BrokerError,
    BrokerInfo,
    ConsumerQueues,
    Message,
    MissingQueueError,
    NotPublishedError,
    OnDelivery,
    OnPublished,
    QueueState,
)
from chaos.simulation.broker import Broker, Kept, Session, describe
from chaos.simulation.plan import Bug
from chaos.simulation.processes import Process
from chaos.simulation.virtual_time import VirtualLoop
from tests.ingest.begun import begin_in_task

#: What a planted bug makes of it.
NO_DEADLINE_S = 60.0

#: How long a planted bug leaves undone what it says is done.
HASTE_S = 1.0

#: Between two tries to connect.
BACKOFF_S = 0.5


class SimulatedDelivery:
    """One hand-over; see `broker.Delivery`."""

    __slots__ = ("_kept", "_session", "_tag", "_transport")

    def __init__(self, transport: "SimulatedTransport", session: Session, tag: int, kept: Kept) -> None:
        self._transport = transport
        self._session = session
        self._tag = tag
        self._kept = kept

    @property
    def message(self) -> Message:
        """The message."""
        return self._kept.message

    @property
    def crashes(self) -> int:
        """How often it came back."""
        return self._kept.deliveries + self._kept.message.crashes

    @property
    def taken_out(self) -> str:
        """Empty: this broker has no policies."""
        return ""

    def ack(self) -> Awaitable[bool]:
        """Send an acknowledgement: True if it is on its way, which is all that AMQP ever tells."""
        transport = self._transport
        acked = transport.loop.create_future()
        acked.set_result(self._session.is_open)
        transport.loop.after(transport.broker.network.latency_s(), self._session.settled, self._tag)
        return acked


class SimulatedSubscription:
    """A consumer's hold on its queue; see `broker.Subscription`."""

    def __init__(self, transport: "SimulatedTransport", queue: str, on_delivery: OnDelivery, prefetch: int) -> None:
        self.queue = queue
        self._transport = transport
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._is_open = False

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer."""
        return self._is_open and self._transport.session is not None

    def room(self) -> int:
        """Return how many deliveries may be unsettled at once."""
        return self._prefetch if self._is_open else 0

    def hand_over(self, tag: int, kept: Kept) -> None:
        """Take a delivery that has arrived."""
        session = self._transport.session
        if session is None or tag not in session.unacked or not self._is_open:
            return
        del session.in_transit[tag]
        if Bug.ACKED_BEFORE_EFFECT in self._transport.broker.bugs:
            session.settled(tag)
        self._on_delivery(SimulatedDelivery(self._transport, session, tag, kept))

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound how many deliveries may be unsettled at once; what is on its way has come when this returns."""
        self._prefetch = prefetch
        await asyncio.sleep(self._transport.broker.network.latency_s())
        session = self._transport.session
        while session is not None and session.is_open and self in session.in_transit.values():  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.001)
        if session is not None and session.is_open:
            self._transport.broker.pump(self.queue)

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._transport.subscribed(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_open = False
        self._transport.unsubscribed(self)


class SimulatedTransport:
    """See `broker.Transport`. What a process publishes while it dies may still arrive."""

    def __init__(
        self,
        broker: Broker,
        process: Process,
        retry_delays_s: Sequence[float],
        *,
        confirm_timeout_s: float = DEFAULT_CONFIRM_TIMEOUT_S,
    ) -> None:
        self.broker = broker
        self.loop: VirtualLoop = broker.loop
        self.session: Session | None = None
        self._process = process
        self._retry_delays_s = retry_delays_s
        self._confirm_timeout_s = confirm_timeout_s
        self._subscriptions: list[SimulatedSubscription] = []
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeping_connected: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._keeping_connected = asyncio.create_task(self._keep_connected(), name="connection")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._keeping_connected is not None:
            self._keeping_connected.cancel()
            await asyncio.wait([self._keeping_connected])
        if self.session is not None:
            self.session.lose("closed")

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there and reads."""
        return self._ready.is_set() and not self.broker.is_blocked

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""
        while not self.is_ready:  # noqa: ASYNC110 - in virtual time nobody minds
            await asyncio.sleep(0.1)

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key."""
        await self._keep(f"publish {describe(message)}", lambda: self.broker.route(message))

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does, if there is a connection now."""
        return self._ready.is_set() and begin_in_task(self.publish(message), on_done)

    async def send(self, consumer: str, message: Message) -> None:
        """Put a message into one consumer's queue."""
        await self._keep(f"send {consumer} {describe(message)}", lambda: self.broker.put(consumer, message))

    async def retry(self, consumer: str, message: Message, *, delay_s: float) -> None:
        """Let a message wait for the retry delay `delay_s`."""
        if delay_s not in self._retry_delays_s:
            raise BrokerError(f"no retry delay of {delay_s:g} s")
        what = f"retry {consumer} {describe(message, f'{delay_s:g} s')}"
        await self._keep(
            what,
            lambda: self.broker.wait(consumer, message, delay_s),
            is_awaited=Bug.ACKED_BEFORE_RETRY_KEPT not in self.broker.bugs,
        )

    async def dead_letter(self, consumer: str, message: Message) -> None:
        """Put a message into the consumer's queue of dead letters."""
        what = f"dead-letter {consumer} {describe(message)}"
        await self._keep(what, lambda: self.broker.put(f"{consumer}.dead", message))

    def subscribe(
        self, queues: ConsumerQueues, on_delivery: OnDelivery, *, prefetch: int, dead: bool = False
    ) -> SimulatedSubscription:
        """Consume a consumer's queue, or that of its dead letters."""
        queue = f"{queues.consumer}.dead" if dead else queues.consumer
        return SimulatedSubscription(self, queue, on_delivery, prefetch)

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits."""
        waiting = self.broker.waiting
        return [
            QueueState(consumer=name, exists=True, ready=waiting.get(name, 0), unacked=0, connected=0, dead=0)
            for name in consumers
        ]

    async def count_retrying(self) -> int:
        """Count nothing: nobody asks here."""
        return 0

    async def remove(self, consumer: str, *, force: bool) -> None:
        """Refuse: no world removes consumers."""
        raise MissingQueueError(f"{consumer} cannot be removed here, by force or not: {force}")

    async def info(self) -> BrokerInfo:
        """Describe the broker."""
        return BrokerInfo(product="simulated", version="1")

    def subscribed(self, subscription: SimulatedSubscription) -> None:
        """Begin to consume, now or once there is a session."""
        self._subscriptions.append(subscription)
        if self.session is not None:
            self.broker.consume(self.session, subscription)

    def unsubscribed(self, subscription: SimulatedSubscription) -> None:
        """Stop consuming."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if self.session is not None:
            self.session.give_back(subscription)

    async def _keep_connected(self) -> None:
        while True:
            await asyncio.sleep(self.broker.network.latency_s())
            self._lost.clear()
            # The broker's end of the line tells when it is lost, whatever this process does then.
            self.session = self.broker.open(self._process, on_lost=self._on_lost)
            if self.session is not None:
                self._ready.set()
                for subscription in self._subscriptions:
                    self.broker.consume(self.session, subscription)
                await self._lost.wait()
            await asyncio.sleep(BACKOFF_S)

    def _on_lost(self) -> None:
        self.session = None
        self._ready.clear()
        self._lost.set()

    async def _keep(self, what: str, keep: Callable[[], None], *, is_awaited: bool = True) -> None:
        """Return once the broker has kept it. A session that is lost meanwhile is waited for, and it is sent again."""
        timeout_s = NO_DEADLINE_S if Bug.NO_DEADLINE in self.broker.bugs else self._confirm_timeout_s
        deadline_s = self.loop.time() + timeout_s
        operation = what.partition(" ")[0]
        await self._process.passes(f"{operation} begun")
        try:
            async with asyncio.timeout_at(deadline_s):
                while not await self._send(what, keep, is_awaited=is_awaited):  # noqa: ASYNC110 - same
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.broker.story.tell(self._process.name, "not confirmed", what)
            raise NotPublishedError(f"not confirmed in {timeout_s:g} s") from None
        await self._process.passes(f"{operation} confirmed")

    async def _send(self, what: str, keep: Callable[[], None], *, is_awaited: bool) -> bool:
        await self._ready.wait()
        session = self.session
        if session is None:
            return False
        confirmed: asyncio.Future[bool] = self.loop.create_future()
        delay_s = self.broker.network.latency_s() + (0.0 if is_awaited else HASTE_S)
        self.loop.after(delay_s, self.broker.receive, session, keep, what, partial(_settle, confirmed))
        if not is_awaited:
            return True
        return await confirmed


def _settle(future: "asyncio.Future[bool]", kept: bool) -> None:
    if not future.done():
        future.set_result(kept)
