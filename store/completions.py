"""Which events a consumer has handled, and which it is handling: so that a repeated delivery is not handled twice.

Any number of events is claimed, completed or released in one transaction: the runner gathers them.
The database's clock decides, so that workers whose clocks differ agree on when a lease has run out.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store import completion_statements as statements
from store.connecting import Store
from store.sql import MAX_VALUES, chunks, now_us
from store.tables import completions

#: How long completions are remembered.
REMEMBERED_S: Final = 7 * 86_400

#: Rows deleted per transaction, so that nobody waits long for it.
PRUNED_AT_ONCE: Final = 5000

_KEY = tuple_(completions.c.consumer, completions.c.event_id)
_UNFINISHED = completions.c.completed_at_us.is_(None)


class Claim(StrEnum):
    """What came of asking to handle an event."""

    CLAIMED = "claimed"
    COMPLETED = "completed"
    LEASED = "leased"


async def claim(
    store: Store, *, consumer: str, event_ids: Collection[str], owner: str, lease_s: float
) -> dict[str, Claim]:
    """Ask to handle events for `lease_s` seconds, in one transaction; return what came of it for each.

    CLAIMED: it is the caller's (`owner`, a token of one worker). COMPLETED: it was handled. LEASED: another is
    handling it. A lease that has run out, or that is the same owner's, is taken over.
    """
    given = _given(store, consumer, event_ids, owner)

    async def operation(connection: AsyncConnection) -> dict[str, Claim]:
        claims = dict.fromkeys(event_ids, Claim.LEASED)
        mine = await connection.execute(statements.claims(store.is_sqlite), {**given, "lease_us": _us(lease_s)})
        claims |= dict.fromkeys(mine.scalars(), Claim.CLAIMED)
        others = [event_id for event_id, claimed in claims.items() if claimed is Claim.LEASED]
        if others:
            of_others = _given(store, consumer, others, owner)
            completed = await connection.execute(statements.completed(store.is_sqlite), of_others)
            claims |= dict.fromkeys(completed.scalars(), Claim.COMPLETED)
        return claims

    return await store.write(operation)


async def complete(store: Store, *, consumer: str, event_ids: Collection[str], owner: str) -> None:
    """Remember in one transaction that `owner` handled events, whoever holds their leases by now.

    Durable on return. The first completion of an event stays.
    """
    given = _given(store, consumer, event_ids, owner)
    await store.write(lambda connection: connection.execute(statements.completing(store.is_sqlite), given))


async def release(store: Store, *, consumer: str, event_ids: Collection[str], owner: str) -> None:
    """Give back leases before their end, in one transaction; those that are no longer the owner's stay."""
    given = _given(store, consumer, event_ids, owner)
    await store.write(lambda connection: connection.execute(statements.releasing(store.is_sqlite), given))


async def renew(store: Store, *, owner: str, lease_s: float) -> None:
    """Let the owner's leases end `lease_s` seconds from now."""
    statement = (
        update(completions).where(completions.c.owner == owner, _UNFINISHED).values(leased_until_us=_from_now(lease_s))
    )
    await store.write(lambda connection: connection.execute(statement))


async def forget(store: Store, *, consumer: str, event_ids: Collection[str]) -> int:
    """Forget that a consumer completed these events, and return how many it had; running leases stay."""

    async def operation(connection: AsyncConnection) -> int:
        return sum(
            [
                (
                    await connection.execute(
                        delete(completions).where(
                            completions.c.consumer == consumer,
                            completions.c.event_id.in_(part),
                            completions.c.completed_at_us.is_not(None),
                        )
                    )
                ).rowcount
                for part in chunks(sorted(event_ids), MAX_VALUES)
            ]
        )

    return await store.write(operation)


async def prune_completions(store: Store, *, older_than_s: float = REMEMBERED_S) -> int:
    """Delete what was completed, or whose lease ran out, longer ago than `older_than_s`; return how many."""
    since_us = _from_now(-older_than_s)
    old = (
        select(completions.c.consumer, completions.c.event_id)
        .where(
            or_(completions.c.completed_at_us < since_us, and_(_UNFINISHED, completions.c.leased_until_us < since_us))
        )
        .limit(PRUNED_AT_ONCE)
    )
    statement = delete(completions).where(_KEY.in_(old))
    pruned = 0
    while True:
        count = (await store.write(lambda connection: connection.execute(statement))).rowcount
        pruned += count
        if count < PRUNED_AT_ONCE:
            return pruned


def _given(store: Store, consumer: str, event_ids: Collection[str], owner: str) -> dict[str, Any]:
    return statements.parameters(store.is_sqlite, consumer=consumer, event_ids=event_ids, owner=owner)


def _from_now(seconds: float) -> ColumnElement[int]:
    return now_us() + _us(seconds)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
