"""Which events a consumer has handled, and which it is handling: so that a repeated delivery is not handled twice.

Any number of events is claimed, completed or released in one transaction: the worker gathers them.
The database's clock decides, so that workers whose clocks differ agree on when a lease has run out.

Each statement is built once per database, and the ids come as one parameter.
Rows are taken in the order of their keys by everybody, so that nobody waits in a circle.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ClauseElement,
    ColumnElement,
    Delete,
    Select,
    Text,
    TextClause,
    and_,
    bindparam,
    delete,
    null,
    or_,
    select,
    tuple_,
    update,
)

from store.connection import AsyncConnection
from store.statements.dialect import ConflictInsert, Dialect
from store.store import MAX_VALUES, Store, chunks, now_us
from store.tables import completions, consumers, overdue_deliveries

_KEY_COLUMNS = (completions.c.consumer, completions.c.event_id)
_UNFINISHED = completions.c.completed_at_us.is_(None)

_CONSUMER = bindparam("of_consumer", type_=Text)
_LEASE_HOLDER = bindparam("by_lease_holder", type_=Text)
_LEASE_US = bindparam("lease_us", type_=BigInteger)

#: How long completions are remembered.
REMEMBERED_S: Final = 7 * 86_400

#: Rows deleted per transaction, so that nobody waits long for it.
PRUNED_AT_ONCE: Final = 5000

_KEY = tuple_(completions.c.consumer, completions.c.event_id)


class Claim(StrEnum):
    """What came of asking to handle an event."""

    CLAIMED = "claimed"
    COMPLETED = "completed"
    LEASED = "leased"


#: Makes a statement for a kind of database, the same object again and again.
Statement: TypeAlias = Callable[[Dialect], ClauseElement]
Fetch: TypeAlias = Callable[[Statement, Mapping[str, Any]], Awaitable[Sequence[str] | None]]


async def claim(
    store: Store, *, consumer: str, event_ids: Collection[str], lease_holder: str, lease_s: float
) -> dict[str, Claim]:
    """Ask to handle events for `lease_s` seconds, all at once; return what came of it for each.

    CLAIMED: it is the caller's (`lease_holder`, a token of one worker). COMPLETED: it was handled. LEASED: another is
    handling it. A lease that has run out, or of the same lease holder, is taken over.
    """
    dialect = store.dialect

    async def ask(fetch: Fetch) -> dict[str, Claim] | None:
        given = _given(dialect, consumer, event_ids, lease_holder)
        claims = dict.fromkeys(event_ids, Claim.LEASED)
        mine = await fetch(_claiming, {**given, "lease_us": _us(lease_s)})
        if mine is None:
            return None
        claims |= dict.fromkeys(mine, Claim.CLAIMED)
        others = [event_id for event_id, claimed in claims.items() if claimed is Claim.LEASED]
        completed = await fetch(_completed, _given(dialect, consumer, others, lease_holder)) if others else []
        return None if completed is None else claims | dict.fromkeys(completed, Claim.COMPLETED)

    async def directly(statement: Statement, parameters: Mapping[str, Any]) -> Sequence[str] | None:
        rows = await store.fetch_directly(statement(dialect), parameters)
        return None if rows is None else [row[0] for row in rows]

    async def operation(connection: AsyncConnection) -> dict[str, Claim]:
        async def carefully(statement: Statement, parameters: Mapping[str, Any]) -> Sequence[str]:
            return (await connection.execute(_rendered(dialect, statement), parameters)).scalars().all()

        return await ask(carefully) or {}

    claims = await ask(directly)
    return await store.write(operation) if claims is None else claims


async def complete(store: Store, *, consumer: str, event_ids: Collection[str], lease_holder: str) -> None:
    """Remember in one transaction that `lease_holder` handled events, whoever holds their leases by now.

    Durable on return. The first completion of an event stays.
    """
    await _execute(store, _completing, _given(store.dialect, consumer, event_ids, lease_holder))


async def release(store: Store, *, consumer: str, event_ids: Collection[str], lease_holder: str) -> None:
    """Release leases before their end, in one transaction; those that are no longer the holder's stay."""
    await _execute(store, _releasing, _given(store.dialect, consumer, event_ids, lease_holder))


async def _execute(store: Store, statement: Statement, parameters: Mapping[str, Any]) -> None:
    if await store.fetch_directly(statement(store.dialect), parameters) is None:
        await store.write(lambda connection: connection.execute(_rendered(store.dialect, statement), parameters))


@cache
def _rendered(dialect: Dialect, statement: Statement) -> TextClause:
    return dialect.render(statement(dialect))


@cache
def _claiming(dialect: Dialect) -> ClauseElement:
    """Lease events that are free, and return their ids."""
    insert = _insert(dialect, owner=_LEASE_HOLDER, leased_until_us=now_us() + _LEASE_US)
    upsert = insert.on_conflict_do_update(
        index_elements=_KEY_COLUMNS,
        set_={"owner": insert.excluded.owner, "leased_until_us": insert.excluded.leased_until_us},
        where=and_(_UNFINISHED, or_(completions.c.owner == _LEASE_HOLDER, completions.c.leased_until_us <= now_us())),
    )
    return upsert.returning(completions.c.event_id)


@cache
def _completed(dialect: Dialect) -> Select[Any]:
    """Select the ids of the events that were completed."""
    return select(completions.c.event_id).where(_are_given(dialect), ~_UNFINISHED)


@cache
def _completing(dialect: Dialect) -> ClauseElement:
    """Complete events, whoever holds their leases; the first completion stays."""
    insert = _insert(dialect, owner=_LEASE_HOLDER, completed_at_us=now_us())
    return insert.on_conflict_do_update(
        index_elements=_KEY_COLUMNS,
        set_={
            "owner": insert.excluded.owner,
            "leased_until_us": null(),
            "completed_at_us": insert.excluded.completed_at_us,
        },
        where=_UNFINISHED,
    )


@cache
def _releasing(dialect: Dialect) -> Delete:
    """Delete leases that are the lease holder's."""
    leases = (
        select(completions.c.event_id)
        .where(_are_given(dialect), completions.c.owner == _LEASE_HOLDER, _UNFINISHED)
        .order_by(completions.c.event_id)
        .with_for_update()
    )
    return delete(completions).where(completions.c.consumer == _CONSUMER, completions.c.event_id.in_(leases))


def _insert(dialect: Dialect, **values: ColumnElement[Any]) -> ConflictInsert:
    event_id = dialect.ids_column("event_ids")
    # The condition always holds: without one SQLite takes ON CONFLICT for that of a join.
    # https://www.sqlite.org/lang_upsert.html#parsing_ambiguity
    rows = select(_CONSUMER, event_id, *values.values()).where(event_id.is_not(None)).order_by(event_id)
    return dialect.insert(completions).from_select(["consumer", "event_id", *values], rows)


def _are_given(dialect: Dialect) -> ColumnElement[bool]:
    given = select(dialect.ids_column("event_ids"))
    return and_(completions.c.consumer == _CONSUMER, completions.c.event_id.in_(given))


def _given(dialect: Dialect, consumer: str, event_ids: Collection[str], lease_holder: str) -> dict[str, Any]:
    """Return the parameters of these statements; `_claiming` wants `lease_us` too."""
    ids = list(dict.fromkeys(event_ids))
    return {"of_consumer": consumer, "by_lease_holder": lease_holder, "event_ids": dialect.ids_parameter(ids)}


async def renew(store: Store, *, lease_holder: str, lease_s: float) -> None:
    """Let the lease holder's leases end `lease_s` seconds from now."""
    statement = (
        update(completions)
        .where(completions.c.owner == lease_holder, _UNFINISHED)
        .values(leased_until_us=_from_now(lease_s))
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
    return now_us() + _us(seconds)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


async def lease_holders(store: Store) -> frozenset[str]:
    """Return the holders of all leases that were not completed, run out or not."""
    query = select(completions.c.owner).where(_UNFINISHED, completions.c.owner.is_not(None)).distinct()
    async with store.reading() as connection:
        return frozenset((await connection.execute(query)).scalars())


async def release_holder(store: Store, lease_holder: str) -> int:
    """Let go of every lease of `lease_holder`, and return how many there were."""
    statement = delete(completions).where(completions.c.owner == lease_holder, _UNFINISHED)
    return (await store.write(lambda connection: connection.execute(statement))).rowcount


class OverdueDelivery(Struct, frozen=True, kw_only=True):
    """A delivery that `lease_holder`, a worker, should have settled long ago; it has had it for `unsettled_s`."""

    consumer: str
    event_id: str
    lease_holder: str
    unsettled_s: float


#: What a worker did not repeat for so long is over, or the worker is.
OVERDUE_KEPT_S: Final = 60.0


async def report_overdue(store: Store, deliveries: Sequence[OverdueDelivery], *, lease_holder: str) -> None:
    """Put `deliveries` in the place of what `lease_holder` reported before, and forget what is long over."""
    rows = [
        {
            "lease_holder": lease_holder,
            "consumer": one.consumer,
            "event_id": one.event_id,
            "for_us": _us(one.unsettled_s),
        }
        for one in deliveries
    ]
    over = or_(
        overdue_deliveries.c.lease_holder == lease_holder,
        overdue_deliveries.c.seen_at_us < _from_now(-OVERDUE_KEPT_S * 10),
    )
    since_us = now_us() - bindparam("for_us", type_=BigInteger)
    keep = overdue_deliveries.insert().values(since_us=since_us, seen_at_us=now_us())

    async def operation(connection: AsyncConnection) -> None:
        await connection.execute(delete(overdue_deliveries).where(over))
        if rows:
            await connection.execute(keep, rows)

    await store.write(operation)


async def list_overdue(store: Store) -> list[OverdueDelivery]:
    """Return the deliveries that workers said to be overdue within `OVERDUE_KEPT_S`, the oldest first."""
    columns = overdue_deliveries.c
    query = (
        select(columns.consumer, columns.event_id, columns.lease_holder, (now_us() - columns.since_us).label("for_us"))
        .where(columns.seen_at_us >= _from_now(-OVERDUE_KEPT_S))
        .order_by(columns.since_us, columns.consumer, columns.event_id)
    )
    async with store.reading() as connection:
        return [
            OverdueDelivery(
                consumer=row.consumer,
                event_id=row.event_id,
                lease_holder=row.lease_holder,
                unsettled_s=row.for_us / 1_000_000,
            )
            for row in await connection.execute(query)
        ]


async def register_consumers(store: Store, routing_keys: Mapping[str, Sequence[str]]) -> None:
    """Remember consumers by name, with the routing keys of the events that they get."""
    insert = store.dialect.insert(consumers)
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
