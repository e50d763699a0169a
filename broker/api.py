"""What ingest and workers see of a transport: messages, deliveries, the protocol, errors.

BrokerError
├── NotPublishedError       the transport did not say that the message is durable
├── MissingQueueError       a queue that must exist does not
└── TopologyConflictError   what is declared differs from what the broker has
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, Self, TypeAlias

from msgspec import Struct

from broker.topology import ConsumerQueues


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event on its way.

    `body` is the callback as it came in, without Sign and ExpireTime. Everything else travels in headers:
    `routing_key` is the EventType of a recognized event, else `unrecognized`; `attempt` counts from 1;
    `crashes` counts workers that died while they held this message, as far as earlier publishes know; `trace` is a W3C
    traceparent or empty. `source` is where the event comes from: empty if the vendor sent it, `reconcile` if we asked
    for it, `archive` if it tells of our archive, `test` if somebody tries the consumers; see `source_word`.
    `waiting_since_us` is when a consumer first found that the vendor has yet to confirm it.
    The last four are empty until a handler has failed; `traceback` is of its last failure, if it raised something.
    Times are microseconds since the Unix epoch.
    """

    body: bytes
    event_id: str
    routing_key: str
    received_at_us: int
    attempt: int = 1
    crashes: int = 0
    trace: str = ""
    source: str = ""
    waiting_since_us: int | None = None
    first_failed_at_us: int | None = None
    last_failed_at_us: int | None = None
    reason: str = ""
    traceback: str = ""


#: Of a traceback, in UTF-8: the end of a longer one is kept.
MAX_TRACEBACK_BYTES: Final = 8192

_SOURCE = re.compile(r"[a-z0-9_-]{1,32}")


def source_word(text: str) -> str:
    """Return `text` if it can be a source: 1 to 32 of a-z, 0-9, _ and -; otherwise nothing.

    Others than ours can write into the queues, and so can a newer version: a word that we do not know is kept.
    """
    return text if _SOURCE.fullmatch(text) else ""


class Delivery(Protocol):
    """One hand-over of a message to a consumer. It is settled by `ack`, or returns by itself if its worker dies."""

    @property
    def message(self) -> Message:
        """The message; a message put into the queue by somebody else gets an event_id computed from its body."""

    @property
    def crashes(self) -> int:
        """How often this message was handed over before and came back without being settled.

        `message.crashes` of earlier publishes included. Zero for a message that no worker died with. What came back
        because this process lost its connection does not count; of other processes nobody can tell.
        """

    @property
    def taken_out(self) -> str:
        """Why the broker itself moved the message to the dead letters, in its words; empty if a consumer did.

        `delivery_limit`: it came back too often. `expired`, `maxlen`: a policy took it out of its consumer's queue.
        """

    def ack(self) -> Awaitable[bool]:
        """Settle for good. False if the connection was lost meanwhile: the message will be delivered again.

        It begins with the call, not with the await: of many, call all, then await each, and they are settled together.
        Never raises for a lost connection. After True the message may, rarely, still be delivered again.
        """


OnDelivery: TypeAlias = Callable[[Delivery], None]
OnPublished: TypeAlias = "Callable[[BrokerError | None], None]"


class Subscription(Protocol):
    """A consumer's hold on its queue, kept through every loss of connection, channel, queue or broker until closed.

    Used as an async context manager: entering returns at once even while the broker is down; leaving stops the
    deliveries and lets go of what is not settled.
    """

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer right now (a prefetch of 0 counts as consuming)."""

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound how many deliveries may be unsettled at once, from now on; 0 stops deliveries.

        Deliveries that are already here stay valid. Returns once the change holds, or at once while the
        broker is away (it holds then on return).
        """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


class QueueState(Struct, frozen=True, kw_only=True):
    """Counts of one consumer's queues; `exists` is False if it has none. None: this broker does not tell.

    `retrying` events wait for their next attempt, the first of them until `next_retry_at_us`, microseconds since the
    Unix epoch. RabbitMQ has those of all consumers in the same queues: see `count_retrying`. The first of those that
    are `ready` was received at `oldest_received_at_us`; None if there is none.
    """

    consumer: str
    exists: bool
    ready: int
    unacked: int | None
    connected: int
    dead: int
    retrying: int | None = None
    next_retry_at_us: int | None = None
    oldest_received_at_us: int | None = None


class BrokerInfo(Struct, frozen=True, kw_only=True):
    """What a person wants to know of a broker. None or empty where it does not tell."""

    product: str
    version: str
    feature_flags_disabled: tuple[str, ...] | None = None
    alarms: tuple[str, ...] | None = None
    orphaned: int = 0
    #: Policies that let the broker lose or cap what it has taken, as sentences.
    harmful_policies: tuple[str, ...] | None = None
    #: What our user may not do, in the broker's words.
    refusals: tuple[str, ...] = ()


class Transport(Protocol):
    """Carries events to consumers' queues and keeps them until they are settled.

    Used as an async context manager. Entering returns at once even while the broker is down; every operation is
    then bounded by its own time-out. All publishing operations return only when the message is durable, and raise
    `NotPublishedError` otherwise.
    """

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there, with the topology declared."""

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key."""

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does, if that can begin at once; False: it cannot, and nothing was done.

        `on_done` is called once, on the event loop, never before this returns: with None once the message is durable,
        else with the error. The time-out is that of `publish`. An `on_done` that raises is logged and stops no other.
        """

    async def send(self, consumer: str, message: Message) -> None:
        """Put a message into one consumer's queue. If it has none, the message goes to `tiw.orphaned`."""

    async def retry(self, consumer: str, message: Message, *, delay_s: float) -> None:
        """Let a message wait `delay_s`, then `send` it. Raises `BrokerError` if that is none of the retry delays.

        Not `NotPublishedError`: to try again would not help.
        """

    async def dead_letter(self, consumer: str, message: Message) -> None:
        """Put a message into the consumer's queue of dead letters."""

    def subscribe(
        self, queues: ConsumerQueues, on_delivery: OnDelivery, *, prefetch: int, dead: bool = False
    ) -> Subscription:
        """Consume a consumer's queue, or the queue of its dead letters, both of which it declares.

        `on_delivery` is called on the event loop, must return at once and must not raise.
        """

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits in the queues of `consumers`, in their order. Raises `BrokerError` if it cannot."""

    async def count_retrying(self) -> int:
        """Count the events of all consumers that wait for their next attempt. Raises `BrokerError` if it cannot."""

    async def remove(self, consumer: str, *, force: bool) -> None:
        """Delete a consumer's queues. Raises `MissingQueueError`; `BrokerError` while events wait, unless `force`."""

    async def info(self) -> BrokerInfo:
        """Describe the broker. Raises `BrokerError` if it cannot be reached."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


class BrokerError(Exception):
    """Raised when a transport cannot do what was asked; root of this package's errors."""


class NotPublishedError(BrokerError):
    """Raised when a message was not confirmed. It may still arrive: publishing it again repeats it at worst."""


class MissingQueueError(BrokerError):
    """Raised when an operation names a queue that the broker does not have."""


class TopologyConflictError(BrokerError):
    """Raised when a queue or exchange exists with other arguments; names both and the remedy."""


class Headers:
    """The names under which what we add to a callback travels beside its body."""

    EVENT_ID = "tiw-event-id"
    ROUTING_KEY = "tiw-routing-key"
    RECEIVED_AT_US = "tiw-received-at-us"
    ATTEMPT = "tiw-attempt"
    CRASHES = "tiw-crashes"
    TRACE = "tiw-trace"
    SOURCE = "tiw-source"
    WAITING_SINCE_US = "tiw-waiting-since-us"
    FIRST_FAILED_AT_US = "tiw-first-failed-at-us"
    LAST_FAILED_AT_US = "tiw-last-failed-at-us"
    REASON = "tiw-reason"
    TRACEBACK = "tiw-traceback"
