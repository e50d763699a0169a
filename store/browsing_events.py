"""Events as people look for them, and what each consumer did with them.

`ix_events_received` has the order and the columns by which events are chosen; events that are few have indexes of
their own. Where neither finds a page full, as many events as `LOOKED_AT` are looked at for it, and the page says how
far it came.
"""

from collections.abc import Collection
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas import UNRECOGNIZED
from store.paging import BigInt, Page, behind, browsing, cursor, place_of
from store.reading import LISTED_EVENT, EventRow, event_of
from store.store import MAX_VALUES, Store, chunks
from store.tables import completions, consumers, dead_letters, events, storable

#: Events that are looked at for a page.
LOOKED_AT: Final = 300_000

_ORDER: Final = (events.c.received_at_us, events.c.event_id)
_Place: TypeAlias = tuple[BigInt, str]


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events: all that is given must be so. `event_type` is one of the vendor's, or `RecordingArchived`.

    `source` is as in `EventRow`; `consumer` chooses the events of its queue, if a consumer of this name ever ran;
    `test`: only tests, or none. Times are microseconds since the Unix epoch, `until_us` excluded.
    """

    app: int | None = None
    task: str | None = None
    event_type: str | None = None
    unrecognized: bool = False
    source: str | None = None
    consumer: str | None = None
    from_us: int | None = None
    until_us: int | None = None
    test: bool | None = None


async def search_events(
    store: Store,
    chosen: EventFilter,
    *,
    after: str | None = None,
    limit: int = 50,
    bodies: bool = False,
) -> Page[EventRow]:
    """Return events, the latest accepted first, behind the cursor `after`. Raises `ValueError` for a wrong one."""
    place = place_of(after, _Place)
    async with browsing(store) as connection:
        conditions = [*behind(_ORDER, place), *await _conditions(connection, chosen)]
        query = select(*LISTED_EVENT)
        if bodies:
            query = query.add_columns(events.c.body)
        query = query.where(*conditions).order_by(*(one.desc() for one in _ORDER)).limit(limit + 1)
        rows = (await connection.execute(query)).all()
    shown = rows[:limit]
    following = cursor((shown[-1].received_at_us, shown[-1].event_id)) if len(rows) > limit else None
    return Page(rows=[event_of(row) for row in shown], next=following)


async def _conditions(connection: AsyncConnection, chosen: EventFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.app is not None:
        conditions.append(events.c.sdk_app_id == chosen.app)
    if chosen.task is not None:
        conditions.append(events.c.task_id == storable(chosen.task))
    if chosen.event_type is not None:
        conditions.append(events.c.event_type == storable(chosen.event_type))
    if chosen.unrecognized:
        conditions.append(events.c.routing_key == UNRECOGNIZED)
    if chosen.source is not None:
        conditions.append(events.c.source == storable(chosen.source))
    if chosen.test is not None:
        conditions.append(events.c.source == "test" if chosen.test else events.c.source != "test")
    if chosen.from_us is not None:
        conditions.append(events.c.received_at_us >= chosen.from_us)
    if chosen.until_us is not None:
        conditions.append(events.c.received_at_us < chosen.until_us)
    if chosen.consumer is not None:
        of_queue = select(consumers.c.routing_keys).where(consumers.c.name == storable(chosen.consumer))
        keys = (await connection.execute(of_queue)).scalar_one_or_none() or []
        conditions.append(events.c.routing_key.in_(keys))
    return conditions


async def find_event(store: Store, event_id: str) -> EventRow | None:
    """Return an event with its body, None if it is not kept."""
    query = select(*LISTED_EVENT, events.c.body).where(events.c.event_id == storable(event_id))
    async with browsing(store) as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else event_of(row)


class EventOutcome(Struct, frozen=True, kw_only=True):
    """What a consumer did with an event. Times are microseconds since the Unix epoch.

    `completed_at_us`: it is done with it, as far as that is remembered (for 7 days, and by consumers that remember).
    `leased_until_us`: it is at work, until then at the latest. `dead`: it gave up, after so many `attempts`, for this
    `reason`; `replayed_at_us` is when that was given to it again.
    """

    event_id: str
    consumer: str
    completed_at_us: int | None = None
    leased_until_us: int | None = None
    dead: bool = False
    attempts: int | None = None
    reason: str | None = None
    last_failed_at_us: int | None = None
    replayed_at_us: int | None = None


async def list_event_outcomes(store: Store, event_ids: Collection[str]) -> list[EventOutcome]:
    """Return what consumers did with these events, by event and consumer; nothing where nothing is remembered."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    async with browsing(store) as connection:
        for part in chunks(sorted({storable(event_id) for event_id in event_ids}), MAX_VALUES):
            for table, shown in ((completions, _COMPLETION), (dead_letters, _LETTER)):
                query = select(table.c.event_id, table.c.consumer, *shown).where(
                    table.c.consumer.in_(_names(table)), table.c.event_id.in_(part)
                )
                for row in await connection.execute(query):
                    found.setdefault((row.event_id, row.consumer), {}).update(row._mapping)  # noqa: SLF001 - SQLAlchemy documents it
    return [EventOutcome(**found[key]) for key in sorted(found)]


_COMPLETION: Final = (completions.c.completed_at_us, completions.c.leased_until_us)
_LETTER: Final = (
    (dead_letters.c.resolved_at_us.is_(None)).label("dead"),
    dead_letters.c.attempts,
    dead_letters.c.reason,
    dead_letters.c.last_failed_at_us,
    dead_letters.c.resolved_at_us.label("replayed_at_us"),
)


def _names(table: Table) -> Select[Any]:
    """Select the different consumers in a table: from one to the next in its key, as there are few and many rows."""
    first = select(func.min(table.c.consumer).label("name")).cte(f"names_of_{table.name}", recursive=True)
    following = select(func.min(table.c.consumer)).where(table.c.consumer > first.c.name).scalar_subquery()
    names = first.union_all(select(following).where(first.c.name.is_not(None)))
    return select(names.c.name).where(names.c.name.is_not(None))
