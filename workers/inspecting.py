"""Which consumers there are, and how each of them is: what `tiw consumers` and the console show."""

from collections import Counter

from msgspec import Struct

from broker import BUILT_IN_CONSUMERS, Transport, queue_name
from store import Store, count_dead_letters, iso8601, list_overdue, registered_consumers
from workers.api import WorkersError


class UnknownConsumerError(WorkersError):
    """Raised when a consumer is named that never ran; the text names those that there are."""


class ConsumerState(Struct, frozen=True, kw_only=True):
    """A consumer as `tiw consumers` shows it.

    `retrying` events wait for their next attempt, the first of them until `next_retry_at`, ISO 8601 text.
    `dead` counts unresolved dead letters, in the store and on their way there. `overdue`: so many deliveries should
    have been settled long ago; their worker hangs. `abandoned`: it has a queue that nobody consumes. None where the
    broker does not tell.
    """

    name: str
    events: tuple[str, ...]
    queue: str
    ready: int
    unacked: int | None
    connected: int
    retrying: int | None
    next_retry_at: str | None
    dead: int
    overdue: int
    abandoned: bool


async def known_consumers(store: Store) -> dict[str, tuple[str, ...]]:
    """Return the routing keys of every consumer that is built in or ever ran: the built-in ones first, then by name."""
    built_in = {consumer.consumer: consumer.routing_keys for consumer in BUILT_IN_CONSUMERS}
    return built_in | await registered_consumers(store) | built_in


async def find_routing_keys(store: Store, name: str) -> tuple[str, ...]:
    """Return the routing keys of a consumer; none of one of which only dead letters are left.

    Raises `UnknownConsumerError`.
    """
    known = await known_consumers(store)
    if name in known:
        return known[name]
    letters = await count_dead_letters(store)
    if name in letters:
        return ()
    names = ", ".join(sorted({*known, *letters}))
    raise UnknownConsumerError(f"no consumer {name!r} ever ran here; there are {names}")


async def consumer_states(transport: Transport, store: Store) -> list[ConsumerState]:
    """Return the state of every consumer with a queue: the built-in ones first, then users' by name."""
    events = await known_consumers(store)
    dead = await count_dead_letters(store)
    overdue = Counter(one.consumer for one in await list_overdue(store))
    return [
        ConsumerState(
            name=state.consumer,
            events=events[state.consumer],
            queue=queue_name(state.consumer),
            ready=state.ready,
            unacked=state.unacked,
            connected=state.connected,
            retrying=state.retrying,
            next_retry_at=None if state.next_retry_at_us is None else iso8601(state.next_retry_at_us),
            dead=state.dead + dead.get(state.consumer, 0),
            overdue=overdue[state.consumer],
            abandoned=state.connected == 0,
        )
        for state in await transport.inspect(list(events))
        if state.exists
    ]
