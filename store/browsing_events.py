"""Events as people look for them, and what each consumer did with them.

`ix_events_received` has the order and the columns by which events are chosen. What is little as a rule has an index of
its own: what nobody recognized, what was found by asking the vendor, and tests. See `store.paging`.
"""

from collections.abc import Collection
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import Select, false, literal_column, or_, select

from schemas import EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED
from store.connection import AsyncConnection
from store.paging import (
    BigInt,
    Page,
    Walk,
    behind,
    browsing,
    check_numbers,
    different,
    found,
    newest_first,
    place_of,
    walk,
)
from store.reading import LISTED_EVENT, EventRow, event_of
from store.statements import Dialect
from store.store import MAX_VALUES, Store, chunks, members
from store.tables import IS_MARKED, IS_UNRECOGNIZED, completions, consumers, dead_letters, events, storable

_ORDER: Final = (events.c.received_at_us, events.c.event_id)
_Place: TypeAlias = tuple[BigInt, str]

#: The sources that `ix_events_marked` has.
_MARKED: Final = ("reconcile", "test")

#: The source of `RecordingArchived`, which nothing else has.
_OF_OUR_ARCHIVE: Final = "archive"


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


_ALL: Final = EventFilter()


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
    check_numbers(chosen.app, chosen.from_us, chosen.until_us)
    shown = select(*LISTED_EVENT, *((events.c.body,) if bodies else ()))
    async with browsing(store) as connection:
        way = await _way(connection, chosen, place)
        if chosen.task is None:
            walked = await walk(connection, way, shown, limit=limit)
        else:
            apps = await _apps(connection) if chosen.app is None else [chosen.app]
            of_task = _of_task(store.dialect, way, shown, apps, storable(chosen.task)).limit(limit + 1)
            walked = found(_ORDER, (await connection.execute(of_task)).all(), limit=limit)
    return walked.page([event_of(row) for row in walked.rows])


async def list_events(
    store: Store, chosen: EventFilter = _ALL, *, bodies: bool = False, limit: int = 1000
) -> list[EventRow]:
    """Return events, the latest accepted first, at most `limit` (0: all), however long that takes.

    Raises `ValueError` for a number that no column holds; `StoreUnavailableError` and `SchemaMismatchError`.
    """
    check_numbers(chosen.app, chosen.from_us, chosen.until_us)
    query = select(*LISTED_EVENT, *((events.c.body,) if bodies else ()))
    async with store.reading() as connection:
        way = await _way(connection, chosen, None)
        query = query.where(*way.within, *way.indexed, *way.looked_up).order_by(*newest_first(_ORDER))
        if chosen.task is not None:
            query = query.where(events.c.task_id == storable(chosen.task))
        if limit:
            query = query.limit(limit)
        return [event_of(row) for row in await connection.execute(query)]


async def _way(connection: AsyncConnection, chosen: EventFilter, place: _Place | None) -> Walk:
    """Return how to come by events, whatever recording they are of."""
    way = Walk(order=_ORDER, after=place)
    if chosen.from_us is not None:
        way.within.append(events.c.received_at_us >= chosen.from_us)
    if chosen.until_us is not None:
        way.within.append(events.c.received_at_us < chosen.until_us)
    # The indexes of few events have not the columns of the one of all.
    is_few = _choose_few(way, chosen)
    conditions = way.looked_up if is_few else way.indexed
    if chosen.app is not None:
        conditions.append(events.c.sdk_app_id == chosen.app)
    if chosen.event_type in (*EVENT_TYPES, RECORDING_ARCHIVED):
        conditions.append(events.c.routing_key == chosen.event_type)
    elif chosen.event_type is not None:
        way.looked_up.append(events.c.event_type == storable(chosen.event_type))
    if chosen.consumer is not None:
        of_queue = select(consumers.c.routing_keys).where(consumers.c.name == storable(chosen.consumer))
        keys = (await connection.execute(of_queue)).scalar_one_or_none() or []
        conditions.append(or_(false(), *(events.c.routing_key == key for key in keys)))
    if chosen.source == _OF_OUR_ARCHIVE:
        conditions.append(events.c.routing_key == RECORDING_ARCHIVED)
    if chosen.source is not None and chosen.source not in _MARKED:
        way.looked_up.append(events.c.source == storable(chosen.source))
    if chosen.test is False:
        way.looked_up.append(events.c.source != literal_column("'test'"))
    return way


def _choose_few(way: Walk, chosen: EventFilter) -> bool:
    """Add what chooses the index of few events, if all that are asked for are in one."""
    is_unknown = chosen.event_type is not None and chosen.event_type not in (*EVENT_TYPES, RECORDING_ARCHIVED)
    if chosen.source in _MARKED or chosen.test:
        source = chosen.source if chosen.source in _MARKED else "test"
        way.within += [IS_MARKED, events.c.source == literal_column(f"'{source}'")]
        if chosen.test and source != "test":
            way.within.append(false())
        if chosen.unrecognized:
            way.looked_up.append(events.c.routing_key == UNRECOGNIZED)
        return True
    if chosen.unrecognized or is_unknown:
        way.within.append(IS_UNRECOGNIZED)
        return True
    return False


async def _apps(connection: AsyncConnection) -> list[int]:
    return await different(connection, events.c.sdk_app_id, events.c.task_id.is_not(None))


def _of_task(dialect: Dialect, way: Walk, shown: Select[Any], apps: Collection[int], task: str) -> Select[Any]:
    """Select events of one TaskId: there are a few, and they have an index of their own."""
    order = [dialect.unindexed(column) for column in _ORDER]
    return (
        shown.where(events.c.sdk_app_id.in_(apps), events.c.task_id == task, events.c.task_id.is_not(None))
        .where(*way.within, *way.indexed, *way.looked_up, *behind(order, way.after))
        .order_by(*newest_first(order))
    )


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
    outcomes: dict[tuple[str, str], dict[str, Any]] = {}
    async with browsing(store) as connection:
        for table, shown in ((completions, _COMPLETION), (dead_letters, _LETTER)):
            names = await different(connection, table.c.consumer)
            query = select(table.c.event_id, table.c.consumer, *shown).where(table.c.consumer.in_(names))
            for part in chunks(sorted({storable(event_id) for event_id in event_ids}), MAX_VALUES):
                for row in await connection.execute(query.where(table.c.event_id.in_(part))):
                    outcomes.setdefault((row.event_id, row.consumer), {}).update(members(row))
    return [EventOutcome(**outcomes[key]) for key in sorted(outcomes)]


_COMPLETION: Final = (completions.c.completed_at_us, completions.c.leased_until_us)
_LETTER: Final = (
    (dead_letters.c.resolved_at_us.is_(None)).label("dead"),
    dead_letters.c.attempts,
    dead_letters.c.reason,
    dead_letters.c.last_failed_at_us,
    dead_letters.c.resolved_at_us.label("replayed_at_us"),
)
