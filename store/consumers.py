"""The consumers that ever ran: so that a queue whose consumer is gone can be named and looked into."""

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select

from store.connecting import Store
from store.tables import consumers


async def register_consumers(store: Store, routing_keys: Mapping[str, Sequence[str]]) -> None:
    """Remember consumers by name, with the routing keys of the events that they get."""
    insert = store.insert(consumers)
    upsert = insert.on_conflict_do_update(
        index_elements=[consumers.c.name], set_={"routing_keys": insert.excluded.routing_keys}
    )
    rows = [{"name": name, "routing_keys": list(keys)} for name, keys in sorted(routing_keys.items())]
    if rows:
        await store.write(lambda connection: connection.execute(upsert, rows))


async def registered_consumers(store: Store) -> dict[str, tuple[str, ...]]:
    """Return the routing keys of every consumer that was registered, by name."""
    query = select(consumers.c.name, consumers.c.routing_keys).order_by(consumers.c.name)
    async with store.reading() as connection:
        return {name: tuple(keys) for name, keys in await connection.execute(query)}


async def unregister_consumer(store: Store, name: str) -> bool:
    """Forget a consumer; say whether it was known."""
    statement = delete(consumers).where(consumers.c.name == name)
    return bool((await store.write(lambda connection: connection.execute(statement))).rowcount)
