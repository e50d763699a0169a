"""Dead letters as people look for them: what fails for the same reason together, then one by one."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Text, and_, case, cast, func, select

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
from store.tables import completions, dead_letters, events, storable

#: Dead letters that are grouped, the last failed first.
GROUPED: Final = 10_000

#: Groups that are shown.
GROUPS: Final = 500

_letter = dead_letters.c
_ORDER: Final = (_letter.last_failed_at_us, _letter.consumer, _letter.event_id)
_Place: TypeAlias = tuple[BigInt, str, str]


class DeadLetterGroup(Struct, frozen=True, kw_only=True):
    """Dead letters of one consumer that were not replayed and have one `reason`, without what changes in it.

    `first_reason` and `last_reason` are the first and the last of their reasons in the order of the alphabet, as far as
    they are looked at: two examples, or twice all that there is. `is_at_least`: there are more dead letters than are
    grouped, and of this group maybe, too. Times are microseconds since the Unix epoch; `newest_event_id` is of the
    letter that failed last.
    """

    consumer: str
    reason: str
    first_reason: str
    last_reason: str
    event_types: tuple[str, ...]
    count: int
    is_at_least: bool
    first_failed_at_us: int
    last_failed_at_us: int
    newest_event_id: str


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters: all that is given must be so. `reason` is as in a group; `resolved`: those replayed.

    `replay_at_us`: those that this replay gave back last.
    """

    consumer: str | None = None
    reason: str | None = None
    event_id: str | None = None
    resolved: bool = False
    replay_at_us: int | None = None


async def group_dead_letters(store: Store, *, consumer: str | None = None) -> list[DeadLetterGroup]:
    """Return what is to be mended, the group that failed last first, at most `GROUPS`.

    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    is_open: list[ColumnElement[bool]] = [_letter.resolved_at_us.is_(None)]
    if consumer is not None:
        is_open.append(_letter.consumer == storable(consumer))
    reason_start = store.dialect.first_line(_letter.reason, characters=REASON_START)
    # Workers of before give none.
    reason = case((_letter.reason_pattern == "", reason_start), else_=_letter.reason_pattern)
    # The place of each in the order as one text, so that the greatest of a group names its newest letter.
    place = cast(_letter.last_failed_at_us + _NINETEEN_DIGITS, Text).concat(_letter.event_id)
    some = (
        select(_letter.consumer, _letter.event_type, _letter.first_failed_at_us, _letter.last_failed_at_us)
        .add_columns(reason.label("reason"), reason_start.label("reason_start"), place.label("place"))
        .where(*is_open)
        .order_by(*newest_first(_ORDER))
        .limit(GROUPED)
        .subquery()
    )
    key = (some.c.consumer, some.c.reason, some.c.event_type)
    newest = func.max(some.c.last_failed_at_us)
    groups = (
        select(*key, func.count().label("letters"), newest.label("last_us"), func.max(some.c.place).label("place"))
        .add_columns(func.min(some.c.first_failed_at_us).label("first_us"))
        .add_columns(func.min(some.c.reason_start).label("first_reason"))
        .add_columns(func.max(some.c.reason_start).label("last_reason"))
        .group_by(*key)
        .order_by(newest.desc())
        .limit(GROUPS)
    )
    async with browsing(store) as connection:
        rows = (await connection.execute(groups)).all()
        all_open = await count(connection, select(_letter.consumer).where(*is_open), up_to=GROUPED)
    by_key: dict[tuple[str, str], list[Row[Any]]] = {}
    for row in rows:
        by_key.setdefault((row.consumer, row.reason), []).append(row)
    return [_group(key, some_rows, all_open.is_at_least) for key, some_rows in by_key.items()]


#: What makes of each point in time a number with as many digits as every other.
_NINETEEN_DIGITS: Final = 10**18


def _group(key: tuple[str, str], rows: Sequence[Row[Any]], is_at_least: bool) -> DeadLetterGroup:
    """Return the group that these rows, one per event type, are."""
    return DeadLetterGroup(
        consumer=key[0],
        reason=key[1],
        first_reason=min(row.first_reason for row in rows),
        last_reason=max(row.last_reason for row in rows),
        event_types=tuple(sorted(row.event_type for row in rows if row.event_type is not None)),
        count=sum(row.letters for row in rows),
        is_at_least=is_at_least,
        first_failed_at_us=min(row.first_us for row in rows),
        last_failed_at_us=max(row.last_us for row in rows),
        newest_event_id=max(row.place for row in rows)[len(str(_NINETEEN_DIGITS)) :],
    )


class ReplayedLetters(Struct, frozen=True, kw_only=True):
    """What became of the dead letters that one replay gave back to a consumer, as far as it is remembered.

    Those that were given back again or deleted since are not among them. `completed`: the consumer is done with them,
    if it is one that remembers; `kept`: their event is in the store; `failed_again`: they are dead letters anew.
    """

    consumer: str
    count: int
    completed: int
    kept: int
    failed_again: int


async def count_replayed(store: Store, replay_at_us: int) -> list[ReplayedLetters]:
    """Return what became of the letters of a replay, by consumer. Raises what `group_dead_letters` does."""
    of_letter = and_(completions.c.consumer == _letter.consumer, completions.c.event_id == _letter.event_id)
    is_gone = _letter.resolved_at_us.is_not(None)
    query = (
        select(_letter.consumer, func.count().label("count"))
        .add_columns(func.sum(case((and_(is_gone, completions.c.completed_at_us.is_not(None)), 1), else_=0)))
        .add_columns(func.sum(case((and_(is_gone, events.c.event_id.is_not(None)), 1), else_=0)))
        .add_columns(func.sum(case((is_gone, 0), else_=1)))
        .select_from(
            dead_letters.outerjoin(completions, of_letter).outerjoin(events, events.c.event_id == _letter.event_id)
        )
        .where(_letter.replay_at_us == replay_at_us)
        .group_by(_letter.consumer)
        .order_by(_letter.consumer)
    )
    async with browsing(store) as connection:
        rows = (await connection.execute(query)).all()
    return [
        ReplayedLetters(consumer=consumer, count=all_, completed=completed, kept=kept, failed_again=again)
        for consumer, all_, completed, kept, again in rows
    ]


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
    if chosen.reason is not None:
        way.looked_up += has_reason(chosen.reason)
    if chosen.replay_at_us is not None:
        way.looked_up.append(_letter.replay_at_us == chosen.replay_at_us)
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
