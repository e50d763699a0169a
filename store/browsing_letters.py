"""Dead letters as people look for them: what fails for the same reason together, then one by one."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Text, cast, func, select

from store.dead_letters import LISTED_LETTER, REASON_START, DeadLetterRow, has_reason, letter_of
from store.paging import (
    BigInt,
    Page,
    Walk,
    behind,
    browsing,
    count,
    different,
    found,
    newest_first,
    place_of,
    walk,
)
from store.store import Store
from store.tables import dead_letters, events, storable

#: Dead letters that are grouped, the last failed first.
GROUPED: Final = 10_000

#: Groups that are shown.
GROUPS: Final = 500

_letter = dead_letters.c
_ORDER: Final = (_letter.last_failed_at_us, _letter.consumer, _letter.event_id)
_Place: TypeAlias = tuple[BigInt, str, str]


class DeadLetterGroup(Struct, frozen=True, kw_only=True):
    """Dead letters of one consumer that were not replayed and have one reason, as far as `reason_start` says it.

    `is_at_least`: there are more dead letters than are grouped, and of this group maybe, too. Times are microseconds
    since the Unix epoch; `newest_event_id` is of the letter that failed last.
    """

    consumer: str
    reason_start: str
    event_types: tuple[str, ...]
    count: int
    is_at_least: bool
    first_failed_at_us: int
    last_failed_at_us: int
    newest_event_id: str


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters: all that is given must be so. `reason_start` is as in a group; `resolved`: those replayed."""

    consumer: str | None = None
    reason_start: str | None = None
    event_id: str | None = None
    resolved: bool = False


async def group_dead_letters(store: Store, *, consumer: str | None = None) -> list[DeadLetterGroup]:
    """Return what is to be mended, the group that failed last first, at most `GROUPS`.

    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    is_open: list[ColumnElement[bool]] = [_letter.resolved_at_us.is_(None)]
    if consumer is not None:
        is_open.append(_letter.consumer == storable(consumer))
    reason_start = store.dialect.first_line(_letter.reason, characters=REASON_START)
    # The place of each in the order as one text, so that the greatest of a group names its newest letter.
    place = cast(_letter.last_failed_at_us + _NINETEEN_DIGITS, Text).concat(_letter.event_id)
    some = (
        select(*_KEY, _letter.event_type, _letter.first_failed_at_us, place.label("place"))
        .add_columns(reason_start.label("reason_start"), _letter.last_failed_at_us)
        .where(*is_open)
        .order_by(*newest_first(_ORDER))
        .limit(GROUPED)
        .subquery()
    )
    newest = func.max(some.c.last_failed_at_us)
    groups = (
        select(some.c.consumer, some.c.reason_start, some.c.event_type)
        .add_columns(func.count().label("letters"), newest.label("last_us"), func.max(some.c.place).label("place"))
        .add_columns(func.min(some.c.first_failed_at_us).label("first_us"))
        .group_by(some.c.consumer, some.c.reason_start, some.c.event_type)
        .order_by(newest.desc())
        .limit(GROUPS)
    )
    async with browsing(store) as connection:
        rows = (await connection.execute(groups)).all()
        all_open = await count(connection, select(_letter.consumer).where(*is_open), up_to=GROUPED)
    by_key: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        by_key.setdefault((row.consumer, row.reason_start), []).append(row)
    return [_group(key, some_rows, all_open.is_at_least) for key, some_rows in by_key.items()]


_KEY: Final = (_letter.consumer, _letter.event_id)

#: What makes of each point in time a number with as many digits as every other.
_NINETEEN_DIGITS: Final = 10**18


def _group(key: tuple[str, str], rows: Sequence[Row[Any]], is_at_least: bool) -> DeadLetterGroup:
    """Return the group that these rows, one per event type, are."""
    return DeadLetterGroup(
        consumer=key[0],
        reason_start=key[1],
        event_types=tuple(sorted(row.event_type for row in rows if row.event_type is not None)),
        count=sum(row.letters for row in rows),
        is_at_least=is_at_least,
        first_failed_at_us=min(row.first_us for row in rows),
        last_failed_at_us=max(row.last_us for row in rows),
        newest_event_id=max(row.place for row in rows)[len(str(_NINETEEN_DIGITS)) :],
    )


async def search_dead_letters(
    store: Store, chosen: DeadLetterFilter, *, after: str | None = None, limit: int = 50, bodies: bool = False
) -> Page[DeadLetterRow]:
    """Return dead letters, the last failed first, behind the cursor `after`.

    Raises `ValueError` for a wrong cursor; `StoreUnavailableError` and `SchemaMismatchError`.
    """
    is_open = _letter.resolved_at_us.is_(None)
    way = Walk(order=_ORDER, after=place_of(after, _Place), indexed=[~is_open if chosen.resolved else is_open])
    if chosen.consumer is not None:
        way.indexed.append(store.dialect.unindexed(_letter.consumer) == storable(chosen.consumer))
    if chosen.reason_start is not None:
        way.looked_up += has_reason(chosen.reason_start)
    shown = select(*LISTED_LETTER, *((_letter.body,) if bodies else ()))
    shown = shown.select_from(dead_letters.outerjoin(events, events.c.event_id == _letter.event_id))
    async with browsing(store) as connection:
        if chosen.event_id is None:
            walked = await walk(connection, way, shown, limit=limit)
        else:
            # At most one for each consumer.
            names = await different(connection, _letter.consumer)
            of_event = shown.where(_letter.consumer.in_(names), _letter.event_id == storable(chosen.event_id))
            of_event = of_event.where(*way.indexed, *way.looked_up, *behind(_ORDER, way.after))
            rows = (await connection.execute(of_event.order_by(*newest_first(_ORDER)).limit(limit + 1))).all()
            walked = found(_ORDER, rows, limit=limit)
    return walked.page([letter_of(row) for row in walked.rows])
