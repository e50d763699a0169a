"""Durable work as rows: what is due is claimed in the order of its deadline, by any number of workers.

A table for it has `store.tables.due_columns` beside its own key and columns, and `due_index`:

- `state`: `due` until the work is done, then `done`;
- `due_at_us`: not before then. A claim moves it to the end of its lease: whoever wants the work sooner meanwhile sets
  it to an earlier time, and `postpone` and `finish` let that stand;
- `deadline_at_us`: the order, and when it is too late; what that means is the table's;
- `attempts`: how often it was claimed since it was asked for;
- `lease_holder`, `leased_until_us`: who has it, and until when. A lease that has run out is taken over.

The database's clock decides, so that workers whose clocks differ agree. On PostgreSQL claims do not wait for each
other (`FOR UPDATE SKIP LOCKED`); on SQLite one transaction writes at a time.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, and_, case, func, literal_column, or_, select, tuple_, update

from store.connection import AsyncConnection
from store.store import MAX_VALUES, Store, chunks, members, now_us
from store.tables import DONE, DUE

#: The values of a row's primary key, in the order of its columns.
Key: TypeAlias = tuple[Any, ...]


async def claim_due(
    store: Store,
    table: Table,
    *conditions: ColumnElement[bool],
    lease_holder: str,
    lease_s: float,
    limit: int,
    **values: Any,
) -> list[dict[str, Any]]:
    """Lease at most `limit` rows that are due to `lease_holder`, those with the first deadline.

    `lease_holder` is a token of one process. `conditions` say which rows come into question; `values` are set in each
    as it is claimed. Returns the rows as they are then, by (deadline_at_us, key), with `claimed_at_us`, the database's
    time: two claims at one moment never return one row both. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    key = [*table.primary_key]
    lease_us = _us(lease_s)
    picked = (
        select(*key, (now_us() + lease_us).label("until_us"))
        .where(_is_due_now(table), *conditions)
        .order_by(table.c.deadline_at_us, *key)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )
    claiming = (
        update(table)
        .where(and_(*(column == picked.c[column.name] for column in key)))
        .values(
            attempts=table.c.attempts + 1,
            lease_holder=lease_holder,
            leased_until_us=picked.c.until_us,
            due_at_us=picked.c.until_us,
            **values,
        )
        .returning(*table.c, (table.c.leased_until_us - lease_us).label("claimed_at_us"))
    )

    async def operation(connection: AsyncConnection) -> list[dict[str, Any]]:
        return [members(row) for row in await connection.execute(claiming)]

    rows = await store.write(operation)
    return sorted(rows, key=lambda row: (row["deadline_at_us"], *(row[column.name] for column in key)))


async def postpone(store: Store, table: Table, key: Key, *, lease_holder: str, after_s: float, **values: Any) -> bool:
    """Let go of a row, which is due again `after_s` seconds from now, or when somebody wanted it meanwhile.

    `values` are set too. Returns whether it was the lease holder's; if not, nothing is changed. A lease that ran out
    and was not taken over is still the holder's. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    return bool(await postpone_all(store, table, [key], lease_holder=lease_holder, after_s=after_s, **values))


async def postpone_all(
    store: Store, table: Table, keys: Sequence[Key], *, lease_holder: str, after_s: float, **values: Any
) -> frozenset[Key]:
    """Do what `postpone` does to each of `keys`, in one transaction; return those that were the lease holder's."""
    due_at_us = case((_is_wanted_sooner(table), table.c.due_at_us), else_=now_us() + _us(after_s))
    return await _let_go(store, table, keys, lease_holder, {"due_at_us": due_at_us, **values})


async def finish(store: Store, table: Table, key: Key, *, lease_holder: str, **values: Any) -> bool:
    """Let go of a row for good: its state is `done`. One that somebody wanted sooner meanwhile stays due.

    `values` are set too. Returns whether it was the lease holder's; if not, nothing is changed, as in `postpone`.
    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    return bool(await finish_all(store, table, [key], lease_holder=lease_holder, **values))


async def finish_all(
    store: Store, table: Table, keys: Sequence[Key], *, lease_holder: str, **values: Any
) -> frozenset[Key]:
    """Do what `finish` does to each of `keys`, in one transaction; return those that were the lease holder's."""
    state = case((_is_wanted_sooner(table), DUE), else_=DONE)
    return await _let_go(store, table, keys, lease_holder, {"state": state, **values})


async def extend_leases(
    store: Store, table: Table, keys: Sequence[Key], *, lease_holder: str, lease_s: float
) -> frozenset[Key]:
    """Let each of `keys` be leased for `lease_s` seconds from now; return those that were the lease holder's.

    A lease that ran out and was not taken over is still the holder's, as in `postpone`. Who works on a row that is not
    returned must stop: another one has it, or it is done. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """

    async def operation(connection: AsyncConnection) -> frozenset[Key]:
        # Once for both columns: on PostgreSQL the clock goes on within a statement.
        until_us = (await connection.execute(select(now_us() + _us(lease_s)))).scalar_one()
        due_at_us = case((_is_wanted_sooner(table), table.c.due_at_us), else_=until_us)
        values = {"leased_until_us": until_us, "due_at_us": due_at_us}
        return await _change_held(connection, table, keys, lease_holder, values)

    return await store.write(operation)


async def next_due_in_s(store: Store, table: Table, *conditions: ColumnElement[bool]) -> float | None:
    """Return in how many seconds a row can be claimed: 0 if one can be now, None if there is none."""
    leased_until_us = func.coalesce(table.c.leased_until_us, table.c.due_at_us)
    can_be_claimed_at_us = case((table.c.due_at_us < leased_until_us, leased_until_us), else_=table.c.due_at_us)
    query = select(func.min(can_be_claimed_at_us) - now_us()).where(_is_due(table), *conditions)
    async with store.reading() as connection:
        in_us = (await connection.execute(query)).scalar_one()
    return None if in_us is None else max(0, in_us) / 1_000_000


class DueCounts(Struct, frozen=True, kw_only=True):
    """How many rows can be claimed now, and how many seconds ago that could be done with the first of them."""

    due: int
    overdue_s: float


async def count_due(store: Store, table: Table, *conditions: ColumnElement[bool]) -> DueCounts:
    """Return how much work waits; what is leased or due later is not counted."""
    query = select(func.count(), now_us() - func.min(table.c.due_at_us)).where(_is_due_now(table), *conditions)
    async with store.reading() as connection:
        due, overdue_us = (await connection.execute(query)).one()
    return DueCounts(due=due, overdue_s=max(0, overdue_us or 0) / 1_000_000)


async def _let_go(
    store: Store, table: Table, keys: Sequence[Key], lease_holder: str, values: dict[str, Any]
) -> frozenset[Key]:
    values |= {"lease_holder": None, "leased_until_us": None}
    return await store.write(lambda connection: _change_held(connection, table, keys, lease_holder, values))


async def _change_held(
    connection: AsyncConnection, table: Table, keys: Sequence[Key], lease_holder: str, values: dict[str, Any]
) -> frozenset[Key]:
    columns = [*table.primary_key]
    changing = (
        update(table).where(_is_due(table), table.c.lease_holder == lease_holder).values(**values).returning(*columns)
    )
    # In the order of their keys, as everybody: nobody waits in a circle.
    changed: set[Key] = set()
    for part in chunks(sorted(keys), MAX_VALUES):
        rows = await connection.execute(changing.where(tuple_(*columns).in_(part)))
        changed.update(tuple(row) for row in rows)
    return frozenset(changed)


def _is_due(table: Table) -> ColumnElement[bool]:
    # Not as a parameter: a plan that is made for every value does not use the index of one.
    return table.c.state == literal_column(f"'{DUE}'")


def _is_due_now(table: Table) -> ColumnElement[bool]:
    # As a query of its own, which PostgreSQL runs once: else it looks at the clock for every row that it passes over.
    at_us = select(now_us()).scalar_subquery()
    is_free = or_(table.c.leased_until_us.is_(None), table.c.leased_until_us <= at_us)
    return and_(_is_due(table), table.c.due_at_us <= at_us, is_free)


def _is_wanted_sooner(table: Table) -> ColumnElement[bool]:
    """Say whether somebody wanted a leased row sooner than its lease ends."""
    return table.c.due_at_us < table.c.leased_until_us


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
