"""Dead letters as people look for them: what fails for the same reason together, then one by one."""

from typing import Final, TypeAlias

from msgspec import Struct, structs
from sqlalchemy import select

from store.dead_letters import LISTED_LETTER, REASON_START, DeadLetterRow, has_reason, letter_of
from store.paging import BigInt, Page, behind, browsing, cursor, place_of
from store.store import Store
from store.tables import dead_letters, events, storable

#: Dead letters that are grouped, the last failed first.
GROUPED: Final = 10_000

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
    """Return what is to be mended, the group that failed last first."""
    newest = select(
        *(_letter.consumer, _letter.reason, _letter.event_type, _letter.event_id),
        *(_letter.first_failed_at_us, _letter.last_failed_at_us),
    ).where(_letter.resolved_at_us.is_(None))
    if consumer is not None:
        newest = newest.where(_letter.consumer == storable(consumer))
    newest = newest.order_by(*(one.desc() for one in _ORDER)).limit(GROUPED + 1)
    async with browsing(store) as connection:
        rows = (await connection.execute(newest)).all()
    is_at_least = len(rows) > GROUPED
    groups: dict[tuple[str, str], DeadLetterGroup] = {}
    for row in rows[:GROUPED]:
        key = (row.consumer, reason_start(row.reason))
        group = groups.get(key)
        if group is None:
            groups[key] = DeadLetterGroup(
                consumer=row.consumer,
                reason_start=key[1],
                event_types=() if row.event_type is None else (row.event_type,),
                count=1,
                is_at_least=is_at_least,
                first_failed_at_us=row.first_failed_at_us,
                last_failed_at_us=row.last_failed_at_us,
                newest_event_id=row.event_id,
            )
            continue
        types = {*group.event_types, *(() if row.event_type is None else (row.event_type,))}
        groups[key] = structs.replace(
            group,
            count=group.count + 1,
            event_types=tuple(sorted(types)),
            first_failed_at_us=min(group.first_failed_at_us, row.first_failed_at_us),
        )
    return [*groups.values()]


def reason_start(reason: str) -> str:
    """Return by what a dead letter is grouped."""
    return reason.partition("\n")[0][:REASON_START]


async def search_dead_letters(
    store: Store,
    chosen: DeadLetterFilter,
    *,
    after: str | None = None,
    limit: int = 50,
    bodies: bool = False,
) -> Page[DeadLetterRow]:
    """Return dead letters, the last failed first, behind the cursor `after`. Raises `ValueError` for a wrong one."""
    place = place_of(after, _Place)
    query = (
        select(*LISTED_LETTER)
        .select_from(dead_letters.outerjoin(events, events.c.event_id == _letter.event_id))
        .where(_letter.resolved_at_us.is_not(None) if chosen.resolved else _letter.resolved_at_us.is_(None))
        .where(*behind(_ORDER, place))
        .order_by(*(one.desc() for one in _ORDER))
        .limit(limit + 1)
    )
    if bodies:
        query = query.add_columns(_letter.body)
    if chosen.consumer is not None:
        query = query.where(_letter.consumer == storable(chosen.consumer))
    if chosen.event_id is not None:
        query = query.where(_letter.event_id == storable(chosen.event_id))
    if chosen.reason_start is not None:
        query = query.where(*has_reason(chosen.reason_start))
    async with browsing(store) as connection:
        rows = (await connection.execute(query)).all()
    shown = rows[:limit]
    last = shown[-1] if len(rows) > limit else None
    return Page(
        rows=[letter_of(row) for row in shown],
        next=None if last is None else cursor((last.last_failed_at_us, last.consumer, last.event_id)),
    )
