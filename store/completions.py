"""Which events a consumer has handled, and which it is handling: so that a repeated delivery is not handled twice.

The database's clock decides, so that workers whose clocks differ agree on when a lease has run out.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, null, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

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


async def claim(store: Store, *, consumer: str, event_id: str, owner: str, lease_s: float) -> Claim:
    """Ask to handle an event for `lease_s` seconds.

    CLAIMED: it is the caller's (`owner`, a token of one worker). COMPLETED: it was handled. LEASED: another is
    handling it. A lease that has run out, or that is the same owner's, is taken over.
    """
    insert = store.insert(completions).values(
        consumer=consumer, event_id=event_id, owner=owner, leased_until_us=_from_now(lease_s)
    )
    upsert = insert.on_conflict_do_update(
        index_elements=[completions.c.consumer, completions.c.event_id],
        set_={"owner": insert.excluded.owner, "leased_until_us": insert.excluded.leased_until_us},
        where=and_(_UNFINISHED, or_(completions.c.owner == owner, completions.c.leased_until_us <= now_us())),
    ).returning(completions.c.owner)
    is_completed = select(completions.c.completed_at_us).where(
        completions.c.consumer == consumer, completions.c.event_id == event_id
    )

    async def operation(connection: AsyncConnection) -> Claim:
        if (await connection.execute(upsert)).first() is not None:
            return Claim.CLAIMED
        completed_at_us = (await connection.execute(is_completed)).scalar_one_or_none()
        return Claim.LEASED if completed_at_us is None else Claim.COMPLETED

    return await store.write(operation)


async def complete(store: Store, *, consumer: str, event_id: str, owner: str) -> None:
    """Remember that `owner` handled an event, whoever holds its lease by now; the first completion stays."""
    insert = store.insert(completions).values(
        consumer=consumer, event_id=event_id, owner=owner, completed_at_us=now_us()
    )
    upsert = insert.on_conflict_do_update(
        index_elements=[completions.c.consumer, completions.c.event_id],
        set_={
            "owner": insert.excluded.owner,
            "leased_until_us": null(),
            "completed_at_us": insert.excluded.completed_at_us,
        },
        where=_UNFINISHED,
    )
    await store.write(lambda connection: connection.execute(upsert))


async def release(store: Store, *, consumer: str, event_id: str, owner: str) -> None:
    """Give back a lease before its end; does nothing if it is no longer the owner's."""
    statement = delete(completions).where(
        completions.c.consumer == consumer,
        completions.c.event_id == event_id,
        completions.c.owner == owner,
        _UNFINISHED,
    )
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
