"""Which events a consumer has handled, and which it is handling: so that a repeated delivery is not handled twice.

Any number of events is claimed, completed or released in one transaction: the runner gathers them.
The database's clock decides, so that workers whose clocks differ agree on when a lease has run out.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, literal, null, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from store.connecting import Store
from store.sql import MAX_VALUES, chunks, each_of, now_us
from store.tables import completions

#: How long completions are remembered.
REMEMBERED_S: Final = 7 * 86_400

#: Rows deleted per transaction, so that nobody waits long for it.
PRUNED_AT_ONCE: Final = 5000

_KEY_COLUMNS = (completions.c.consumer, completions.c.event_id)
_KEY = tuple_(*_KEY_COLUMNS)
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
    upsert = _upsert(store, consumer, event_ids, {"owner": literal(owner), "leased_until_us": _from_now(lease_s)})
    upsert = upsert.on_conflict_do_update(
        index_elements=_KEY_COLUMNS,
        set_={"owner": upsert.excluded.owner, "leased_until_us": upsert.excluded.leased_until_us},
        where=and_(_UNFINISHED, or_(completions.c.owner == owner, completions.c.leased_until_us <= now_us())),
    )

    async def operation(connection: AsyncConnection) -> dict[str, Claim]:
        claimed = (await connection.execute(upsert.returning(completions.c.event_id))).scalars()
        claims = dict.fromkeys(event_ids, Claim.LEASED) | dict.fromkeys(claimed, Claim.CLAIMED)
        others = [event_id for event_id, claimed in claims.items() if claimed is Claim.LEASED]
        if others:
            query = select(completions.c.event_id).where(_are(store, consumer, others), ~_UNFINISHED)
            claims |= dict.fromkeys((await connection.execute(query)).scalars(), Claim.COMPLETED)
        return claims

    return await store.write(operation)


async def complete(store: Store, *, consumer: str, event_ids: Collection[str], owner: str) -> None:
    """Remember in one transaction that `owner` handled events, whoever holds their leases by now.

    Durable on return. The first completion of an event stays.
    """
    upsert = _upsert(store, consumer, event_ids, {"owner": literal(owner), "completed_at_us": now_us()})
    upsert = upsert.on_conflict_do_update(
        index_elements=_KEY_COLUMNS,
        set_={
            "owner": upsert.excluded.owner,
            "leased_until_us": null(),
            "completed_at_us": upsert.excluded.completed_at_us,
        },
        where=_UNFINISHED,
    )
    await store.write(lambda connection: connection.execute(upsert))


async def release(store: Store, *, consumer: str, event_ids: Collection[str], owner: str) -> None:
    """Give back leases before their end, in one transaction; those that are no longer the owner's stay."""
    leases = (
        select(completions.c.event_id)
        .where(_are(store, consumer, event_ids), completions.c.owner == owner, _UNFINISHED)
        .order_by(completions.c.event_id)
        .with_for_update()
    )
    statement = delete(completions).where(completions.c.consumer == consumer, completions.c.event_id.in_(leases))
    await store.write(lambda connection: connection.execute(statement))


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


def _from_now(seconds: float) -> ColumnElement[int]:
    return now_us() + round(seconds * 1_000_000)


def _upsert(
    store: Store, consumer: str, event_ids: Collection[str], values: Mapping[str, ColumnElement[Any]]
) -> postgresql.Insert | sqlite.Insert:
    event_id = each_of(frozenset(event_ids), is_sqlite=store.is_sqlite)
    # Rows are taken in the order of their keys by everybody, so that nobody waits in a circle. The condition holds
    # always: without one SQLite takes ON CONFLICT for that of a join.
    # https://www.sqlite.org/lang_upsert.html#parsing_ambiguity
    rows = select(literal(consumer), event_id, *values.values()).where(event_id.is_not(None)).order_by(event_id)
    return store.insert(completions).from_select(["consumer", "event_id", *values], rows)


def _are(store: Store, consumer: str, event_ids: Collection[str]) -> ColumnElement[bool]:
    these = select(each_of(event_ids, is_sqlite=store.is_sqlite))
    return and_(completions.c.consumer == consumer, completions.c.event_id.in_(these))
