"""What is known of every consumer: from the broker's queues and the store's registry."""

from msgspec import Struct

from broker import BUILT_IN_CONSUMERS, Transport, queue_name
from store import Store, count_dead_letters, registered_consumers


class ConsumerState(Struct, frozen=True, kw_only=True):
    """A consumer as `tiw consumers` shows it.

    `dead` counts unresolved dead letters, in the store and on their way there. `abandoned`: it has a queue that
    nobody consumes. None where the broker does not tell.
    """

    name: str
    events: tuple[str, ...]
    queue: str
    ready: int
    unacked: int | None
    connected: int
    dead: int
    abandoned: bool


async def known_consumers(store: Store) -> dict[str, tuple[str, ...]]:
    """Return the routing keys of every consumer that is built in or ever ran: the built-in ones first, then by name."""
    built_in = {consumer.consumer: consumer.routing_keys for consumer in BUILT_IN_CONSUMERS}
    return built_in | await registered_consumers(store) | built_in


async def consumer_states(transport: Transport, store: Store) -> list[ConsumerState]:
    """Return the state of every consumer with a queue: the built-in ones first, then users' by name."""
    events = await known_consumers(store)
    dead = await count_dead_letters(store)
    return [
        ConsumerState(
            name=state.consumer,
            events=events[state.consumer],
            queue=queue_name(state.consumer),
            ready=state.ready,
            unacked=state.unacked,
            connected=state.connected,
            dead=state.dead + dead.get(state.consumer, 0),
            abandoned=state.connected == 0,
        )
        for state in await transport.inspect(list(events))
        if state.exists
    ]
