"""Leases as a whole: whose there are, and letting go of those whose owner is known to be dead."""

from sqlalchemy import delete, select

from store.connecting import Store
from store.tables import completions

_UNFINISHED = completions.c.completed_at_us.is_(None)


async def lease_owners(store: Store) -> frozenset[str]:
    """Return the owners of all leases that were not completed, run out or not."""
    query = select(completions.c.owner).where(_UNFINISHED, completions.c.owner.is_not(None)).distinct()
    async with store.reading() as connection:
        return frozenset((await connection.execute(query)).scalars())


async def release_owner(store: Store, owner: str) -> int:
    """Let go of every lease of `owner`, and return how many there were."""
    statement = delete(completions).where(completions.c.owner == owner, _UNFINISHED)
    return (await store.write(lambda connection: connection.execute(statement))).rowcount
