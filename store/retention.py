"""Forgetting what is old, in small transactions that nobody waits long for.

A recording stays, and of its events those that it is made of: at most one of each type. Whatever comes late is merged
with them, and the recording is right whenever that is. Everything else goes: what a later or better event of the same
type has superseded, and what belongs to no recording.

Any number of processes may do this at once: on PostgreSQL one of them does it and the others do not wait for it.
"""

from collections.abc import AsyncIterator
from typing import Final, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.connecting import Store
from store.sql import now_us
from store.tables import dead_letters, events

#: Rows that one transaction looks at, and at most deletes.
AT_ONCE: Final = 1000

#: Any number that nobody else takes: "tiwprune" in ASCII.
ADVISORY_LOCK: Final = int.from_bytes(b"tiwprune", "big")

_LETTER = tuple_(dead_letters.c.consumer, dead_letters.c.event_id)


#: An event's place in the order of age: when it was accepted, and its id.
Place: TypeAlias = tuple[int, str]

BEFORE_ALL: Final[Place] = (-1, "")


class PrunedEvents(Struct, frozen=True):
    """What one transaction did: how many it deleted, and the last event that it looked at."""

    deleted: int
    place: Place


async def prune_events(
    store: Store, *, older_than_s: float, after: Place = BEFORE_ALL, at_once: int = AT_ONCE
) -> AsyncIterator[PrunedEvents]:
    """Delete the events that were accepted longer ago than this and that no recording is made of.

    Begins behind `after`, and yields once per transaction; between two of them nothing is locked. Ends early if another
    process is at it. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    looked_at = at_once
    while looked_at == at_once:
        place = after

        async def operation(connection: AsyncConnection, place: Place = place) -> tuple[int, PrunedEvents]:
            return await _prune_page(connection, place, older_than_s, at_once)

        looked_at, pruned = await store.write(operation)
        if looked_at:
            yield pruned
        after = pruned.place


async def prune_dead_letters(store: Store, *, older_than_s: float, at_once: int = AT_ONCE) -> int:
    """Delete dead letters that were replayed longer ago than this, and return how many; others stay for ever."""
    old = select(dead_letters.c.consumer, dead_letters.c.event_id).where(
        dead_letters.c.resolved_at_us < now_us() - round(older_than_s * 1_000_000)
    )
    statement = delete(dead_letters).where(_LETTER.in_(old.limit(at_once)))
    pruned = 0
    while True:
        count = (await store.write(lambda connection: connection.execute(statement))).rowcount
        pruned += count
        if count < at_once:
            return pruned


async def _prune_page(
    connection: AsyncConnection, place: Place, older_than_s: float, at_once: int
) -> tuple[int, PrunedEvents]:
    """Return how many events were looked at, and what became of them."""
    if connection.dialect.name != "sqlite":
        locked = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        if not locked.scalar_one():
            return 0, PrunedEvents(0, place)
    of_event = tuple_(events.c.received_at_us, events.c.event_id)
    page = (
        select(events.c.received_at_us, events.c.event_id, _is_spare().label("is_spare"))
        .where(events.c.received_at_us < now_us() - round(older_than_s * 1_000_000), of_event > place)
        .order_by(events.c.received_at_us, events.c.event_id)
        .limit(at_once)
    )
    rows = (await connection.execute(page)).all()
    spare = sorted(row.event_id for row in rows if row.is_spare)
    if spare:
        await connection.execute(delete(events).where(events.c.event_id.in_(spare)))
    last = (rows[-1].received_at_us, rows[-1].event_id) if rows else place
    return len(rows), PrunedEvents(len(spare), last)


def _is_spare() -> ColumnElement[bool]:
    """Say whether no recording is made of an event; once that is so, it stays so."""
    better = events.alias("better")
    superseded = exists().where(
        and_(
            better.c.sdk_app_id == events.c.sdk_app_id,
            better.c.task_id == events.c.task_id,
            better.c.routing_key == events.c.routing_key,
            tuple_(better.c.outranks, better.c.timestamp, better.c.event_id)
            > tuple_(events.c.outranks, events.c.timestamp, events.c.event_id),
        )
    )
    return or_(events.c.task_id.is_(None), superseded)
