"""The `amqp` transport: RabbitMQ 3.10 to 4, one node or a cluster."""

import contextlib
from collections.abc import Sequence
from typing import Self

from broker.amqp.connection import CONSUMING, PUBLISHING, Link
from broker.amqp.consuming import AmqpSubscription, Watchdog
from broker.amqp.declaring import Declarer
from broker.amqp.endpoints import Brokers, parse_endpoints
from broker.amqp.inspecting import Inspection
from broker.amqp.publishing import Publisher, Route
from broker.api import BrokerError, BrokerInfo, Message, OnDelivery, OnPublished, QueueState
from broker.topology import (
    BUILT_IN_CONSUMERS,
    DEFAULT_CONFIRM_TIMEOUT_S,
    DEFAULT_RETRY_DELAYS_S,
    EVENTS_EXCHANGE,
    HOME_EXCHANGE,
    ROUTING_KEYS,
    ConsumerQueues,
    Topology,
    dead_queue_name,
    queue_name,
    retry_name,
    topology,
)
from schemas import UNRECOGNIZED

#: What AMQP allows a routing key, in bytes of UTF-8.
_LONGEST_ROUTING_KEY = 255

# What somebody may have deleted, see `Publisher.publish`; made once, as every publish hands it over.
_HOME_TOPOLOGY = topology((), retry_delays_s=())
_EVENTS_TOPOLOGY = topology(
    [queues for queues in BUILT_IN_CONSUMERS if queues.consumer == UNRECOGNIZED], retry_delays_s=()
)

# Every event that is ours to publish has one of these.
_EVENTS_ROUTES = {key: Route(EVENTS_EXCHANGE, key, _EVENTS_TOPOLOGY) for key in ROUTING_KEYS}


class AmqpTransport:
    """Implements `broker.Transport` over AMQP 0-9-1.

    `urls` are brokers of one cluster, tried in their order; see `Brokers`. An alarm of one of them blocks all, so that
    no other is tried because of it: https://www.rabbitmq.com/docs/alarms#cluster. The queues of the built-in consumers
    and of `consumers` are declared before the first publish. Publishing and consuming have a connection each, because
    an alarm of the broker blocks those that publish. Raises `BrokerError` for an address that cannot be right.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        consumers: Sequence[ConsumerQueues] = (),
        retry_delays_s: Sequence[float] = DEFAULT_RETRY_DELAYS_S,
        confirm_timeout_s: float = DEFAULT_CONFIRM_TIMEOUT_S,
        management_url: str | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        brokers = Brokers(parse_endpoints(urls))
        self._retry_delays_s = tuple(retry_delays_s)
        self._publishing = Link(brokers, name="publishing", patience=PUBLISHING)
        self._consuming = Link(brokers, name="consuming", patience=CONSUMING)
        self._declarer = Declarer()
        everybody = {queues.consumer: queues for queues in (*BUILT_IN_CONSUMERS, *consumers)}
        self._publisher = Publisher(
            self._publishing,
            self._declarer,
            topology(tuple(everybody.values()), retry_delays_s=self._retry_delays_s),
            confirm_timeout_s=confirm_timeout_s,
            common=tuple(_EVENTS_ROUTES.values()),
        )
        self._watchdog = watchdog or Watchdog()
        self._inspection = Inspection(brokers, retry_delays_s=self._retry_delays_s, management_url=management_url)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._publishing)
        await self._stack.enter_async_context(self._consuming)
        await self._stack.enter_async_context(self._publisher)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there, with the topology declared."""
        return self._publisher.is_ready

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""
        await self._publisher.wait_ready()

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key."""
        await self._publisher.publish(message, _events_route(message.routing_key))

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does, if there is a broker to publish to right now; see `broker.Transport`."""
        return self._publisher.begin(message, _events_route(message.routing_key), on_done)

    async def send(self, consumer: str, message: Message) -> None:
        """Put a message into one consumer's queue. If it has none, the message goes to `tiw.orphaned`."""
        await self._publisher.publish(message, Route(HOME_EXCHANGE, queue_name(consumer), _HOME_TOPOLOGY))

    async def retry(self, consumer: str, message: Message, *, delay_s: float) -> None:
        """Let a message wait `delay_s`, then `send` it. Raises `BrokerError` if that is none of the retry delays.

        The exchange of a delay is a fanout, so that the routing key can name the queue to come home to.
        """
        if delay_s not in self._retry_delays_s:
            raise BrokerError(f"no retry delay of {delay_s:g} s: there are {self._retry_delays_s}")
        fallback = topology((), retry_delays_s=(delay_s,))
        await self._publisher.publish(message, Route(retry_name(delay_s), queue_name(consumer), fallback))

    async def dead_letter(self, consumer: str, message: Message) -> None:
        """Put a message into the consumer's queue of dead letters."""
        await self._publisher.publish(message, Route("", dead_queue_name(consumer), _dead_queue(consumer)))

    def subscribe(
        self, queues: ConsumerQueues, on_delivery: OnDelivery, *, prefetch: int, dead: bool = False
    ) -> AmqpSubscription:
        """Consume a consumer's queue, or the queue of its dead letters, both of which it declares."""
        return AmqpSubscription(
            self._consuming,
            self._declarer,
            topology((queues,), retry_delays_s=self._retry_delays_s),
            dead_queue_name(queues.consumer) if dead else queue_name(queues.consumer),
            on_delivery,
            prefetch=prefetch,
            watchdog=self._watchdog,
        )

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits in the queues of `consumers`, in their order. Raises `BrokerError` if it cannot."""
        return await self._inspection.inspect(consumers)

    async def count_retrying(self) -> int:
        """Count the events of all consumers that wait for their next attempt. Raises `BrokerError` if it cannot."""
        return await self._inspection.count_retrying()

    async def remove(self, consumer: str, *, force: bool) -> None:
        """Delete a consumer's queues. Raises `MissingQueueError`; `BrokerError` while events wait, unless `force`."""
        await self._inspection.remove(consumer, force=force)

    async def info(self) -> BrokerInfo:
        """Describe the broker. Raises `BrokerError` if it cannot be reached."""
        return await self._inspection.info()


def _events_route(routing_key: str) -> Route:
    route = _EVENTS_ROUTES.get(routing_key)
    if route is not None:
        return route
    is_short = len(routing_key.encode(errors="replace")) <= _LONGEST_ROUTING_KEY
    return Route(EVENTS_EXCHANGE, routing_key if is_short else UNRECOGNIZED, _EVENTS_TOPOLOGY)


def _dead_queue(consumer: str) -> Topology:
    """Return the one queue that a dead letter needs, and no other of its consumer, which may be removed."""
    whole = topology((ConsumerQueues(consumer=consumer, routing_keys=()),), retry_delays_s=())
    others = queue_name(consumer)
    return Topology(exchanges=whole.exchanges, queues=tuple(queue for queue in whole.queues if queue.name != others))
