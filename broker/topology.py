"""The topology as data: what exists in a broker, whoever runs first.

Ingest and workers alike declare the built-in part before their first publish or consume, so that an event is kept
even if no worker has ever run. Every argument is one that RabbitMQ 3.10 knows: it refuses a declaration with others.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from schemas import EVENT_KINDS, EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED

EVENTS_EXCHANGE = "tiw.events"
ALTERNATE_EXCHANGE = "tiw.events.alternate"
HOME_EXCHANGE = "tiw.home"
ORPHANS_EXCHANGE = "tiw.home.alternate"
ORPHANED_QUEUE = "tiw.orphaned"
#: With this begin the names of all retry delays.
RETRY_QUEUES = "tiw.retry."

#: Names that a consumer cannot have: their queues are ours.
RESERVED_NAMES = frozenset({"events", "home", "retry", "orphaned", "dead"})

#: Returns of one delivery after which the broker itself gives up: the last resort, far above our own 6.
DELIVERY_LIMIT = 100

#: A queue of dead letters must not lose them by being looked at. -1 drops on RabbitMQ 3.10, and the default of
#: RabbitMQ 4 is 20: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
UNLIMITED_DELIVERIES = 1_000_000_000


class Exchange(Struct, frozen=True, kw_only=True):
    """A durable exchange; `alternate` takes what it cannot route."""

    name: str
    kind: Literal["topic", "direct", "fanout"]
    alternate: str | None = None


class Queue(Struct, frozen=True, kw_only=True):
    """A durable quorum queue with its arguments, and the bindings (exchange, routing key) that fill it."""

    name: str
    arguments: dict[str, Any]
    bindings: tuple[tuple[str, str], ...] = ()


class ConsumerQueues(Struct, frozen=True, kw_only=True):
    """The queues of one consumer: `routing_keys` says which events it gets."""

    consumer: str
    routing_keys: tuple[str, ...]


class Topology(Struct, frozen=True, kw_only=True):
    """Exchanges first, then queues, in the order in which they can be declared."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]


#: The built-in consumers: one for each event of the vendor's, one for ours, one for the rest.
BUILT_IN_CONSUMERS: tuple[ConsumerQueues, ...] = (
    *(ConsumerQueues(consumer=kind.consumer, routing_keys=(kind.event_type,)) for kind in EVENT_KINDS),
    ConsumerQueues(consumer="archived", routing_keys=(RECORDING_ARCHIVED,)),
    ConsumerQueues(consumer="unrecognized", routing_keys=(UNRECOGNIZED,)),
)

#: Every routing key that is ever published to `tiw.events`.
ROUTING_KEYS: tuple[str, ...] = (*EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED)


def queue_name(consumer: str) -> str:
    """Return the name of a consumer's queue."""
    return f"tiw.{consumer}"


def dead_queue_name(consumer: str) -> str:
    """Return the name of the queue where a consumer's dead letters land on their way to the store."""
    return f"tiw.{consumer}.dead"


def retry_name(delay_s: float) -> str:
    """Return the name of a retry delay, of its exchange and its queue alike: 120 s is `tiw.retry.2m`."""
    delay_ms = round(delay_s * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if delay_ms % size == 0:
            return f"{RETRY_QUEUES}{delay_ms // size}{unit}"
    return f"{RETRY_QUEUES}{delay_ms}ms"


def topology(consumers: Sequence[ConsumerQueues], *, retry_delays_s: Sequence[float]) -> Topology:
    """Return all that must exist for `consumers` and the ladder of `retry_delays_s`."""
    exchanges = (
        Exchange(name=ALTERNATE_EXCHANGE, kind="fanout"),
        Exchange(name=EVENTS_EXCHANGE, kind="topic", alternate=ALTERNATE_EXCHANGE),
        Exchange(name=ORPHANS_EXCHANGE, kind="fanout"),
        Exchange(name=HOME_EXCHANGE, kind="direct", alternate=ORPHANS_EXCHANGE),
        *(Exchange(name=retry_name(delay_s), kind="fanout") for delay_s in retry_delays_s),
    )
    queues = (
        Queue(
            name=ORPHANED_QUEUE,
            arguments=_quorum(delivery_limit=UNLIMITED_DELIVERIES),
            bindings=((ORPHANS_EXCHANGE, ""),),
        ),
        *(_retry_queue(delay_s) for delay_s in retry_delays_s),
        *(queue for consumer in consumers for queue in _consumer_queues(consumer)),
    )
    return Topology(exchanges=exchanges, queues=queues)


def _consumer_queues(consumer: ConsumerQueues) -> tuple[Queue, Queue]:
    name, dead = queue_name(consumer.consumer), dead_queue_name(consumer.consumer)
    bindings = [(HOME_EXCHANGE, name), *((EVENTS_EXCHANGE, key) for key in consumer.routing_keys)]
    if consumer.consumer == UNRECOGNIZED:
        bindings.append((ALTERNATE_EXCHANGE, ""))
    return (
        Queue(
            name=name,
            arguments=_quorum(delivery_limit=DELIVERY_LIMIT)
            | _dead_lettered(HOME_EXCHANGE)
            | {"x-dead-letter-routing-key": dead},
            bindings=tuple(bindings),
        ),
        Queue(
            name=dead,
            arguments=_quorum(delivery_limit=UNLIMITED_DELIVERIES) | _dead_lettered(ORPHANS_EXCHANGE),
            bindings=((HOME_EXCHANGE, dead),),
        ),
    )


def _retry_queue(delay_s: float) -> Queue:
    """Return the queue where retries wait.

    Never to the default exchange: its retries of a deleted queue are re-sent every three minutes, 32 at a time,
    and stop that delay for everybody. `tiw.home` leads them to `tiw.orphaned` instead.
    """
    name = retry_name(delay_s)
    return Queue(
        name=name,
        arguments=_quorum(delivery_limit=UNLIMITED_DELIVERIES)
        | _dead_lettered(HOME_EXCHANGE)
        | {
            "x-message-ttl": round(delay_s * 1000),
            # Or a restart in the middle of the hop loses the retry; it needs reject-publish:
            # https://www.rabbitmq.com/docs/quorum-queues#activating-at-least-once-dead-lettering
            "x-dead-letter-strategy": "at-least-once",
        },
        bindings=((name, ""),),
    )


def _quorum(*, delivery_limit: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettered(exchange: str) -> dict[str, Any]:
    """Return the arguments that lead what the broker itself takes out of a queue to `exchange`; a full one refuses.

    The queues of consumers have no limits of ours but the delivery limit; policies may set others. What expires or is
    dropped then goes on, and what is too much is refused while its publisher can still keep it. Nothing helps against a
    policy that deletes unused queues (`expires`): a quorum queue is no less unused for being declared again.

    Only retries are dead-lettered at-least-once: the workers of that strategy have one supervisor per node, and when
    it gives up, their queues find no leader: https://github.com/rabbitmq/rabbitmq-server/issues/16652
    """
    return {"x-dead-letter-exchange": exchange, "x-overflow": "reject-publish"}


#: In seconds. Retry n waits for delay n, after the last for the last.
DEFAULT_RETRY_DELAYS_S: tuple[float, ...] = (1, 5, 30, 120, 600, 3600)

#: How long a broker has to confirm a publish: the answer to the vendor waits for it.
DEFAULT_CONFIRM_TIMEOUT_S = 2.5

#: Where a delivery waits whose event another worker is handling, or whose worker was just lost.
LEASE_WAIT_S = 5.0


def delay_for_retry(delays_s: Sequence[float], retry: int) -> float:
    """Return the delay of retry number `retry`, counted from 1."""
    return delays_s[min(retry, len(delays_s)) - 1]


def delay_not_longer(delays_s: Sequence[float], than_s: float) -> float:
    """Return the longest delay of at most `than_s`; the shortest there is if none is that short."""
    return max((delay_s for delay_s in delays_s if delay_s <= than_s), default=min(delays_s))


def delay_not_shorter(delays_s: Sequence[float], after_s: float) -> float:
    """Return the shortest delay of at least `after_s`; the longest there is if none is that long."""
    return min((delay_s for delay_s in delays_s if delay_s >= after_s), default=max(delays_s))
