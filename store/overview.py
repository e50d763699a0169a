"""How much there is of what somebody may have to look at. Counts stop at `COUNTED`: nobody reads on."""

from typing import Any, Final

from msgspec import Struct
from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas import RecordingStatus
from store.browsing import ELSEWHERE
from store.paging import Count, browsing, count
from store.store import Store, now_us
from store.tables import dead_letters, events, recordings

#: Counts stop here.
COUNTED: Final = 10_000


class Overview(Struct, frozen=True, kw_only=True):
    """How much there is. Recordings are as `RecordingFilter` chooses them, events those that were accepted since.

    `dead_letters` are those that were not replayed, by consumer; consumers without any are absent.
    """

    by_status: dict[RecordingStatus, Count]
    failed: Count
    contradicted: Count
    found_late: Count
    not_archived: Count
    events_last_minute: Count
    events_last_hour: Count
    events_last_day: Count
    dead_letters: dict[str, Count]


async def count_overview(store: Store) -> Overview:
    """Count what there is. Raises `StoreUnavailableError` and `SchemaMismatchError`."""
    async with browsing(store) as connection:
        now: int = (await connection.execute(select(now_us()))).scalar_one()
        in_order = select(recordings.c.active_at_us).order_by(recordings.c.active_at_us.desc())
        is_finished = recordings.c.status == RecordingStatus.FINISHED.value
        elsewhere: dict[str, Count] = {}
        for name, one in ELSEWHERE.items():
            some = one.rows.limit(COUNTED + 1).subquery()
            different = select(some).where(some.c.task_id.is_not(None)).distinct()
            elsewhere[name] = await count(connection, different, up_to=COUNTED)

        async def accepted_within(seconds: int) -> Count:
            since = events.c.received_at_us >= now - seconds * 1_000_000
            return await count(connection, select(events.c.received_at_us).where(since), up_to=COUNTED)

        return Overview(
            by_status={
                **await _count_unfinished(connection),
                RecordingStatus.FINISHED: await count(connection, in_order.where(is_finished), up_to=COUNTED),
            },
            failed=await count(connection, in_order.where(recordings.c.failed), up_to=COUNTED),
            events_last_minute=await accepted_within(60),
            events_last_hour=await accepted_within(3600),
            events_last_day=await accepted_within(86_400),
            dead_letters=await _count_letters(connection),
            **elsewhere,
        )


async def _count_unfinished(connection: AsyncConnection) -> dict[RecordingStatus, Count]:
    """Count recordings that are not finished, all together no further than `COUNTED`."""
    # As the index has it.
    is_unfinished = recordings.c.status != literal_column(f"'{RecordingStatus.FINISHED.value}'")
    some = select(recordings.c.status).where(is_unfinished).limit(COUNTED + 1).subquery()
    counts = await _count_each(connection, some.c.status)
    unfinished = [status for status in RecordingStatus if status is not RecordingStatus.FINISHED]
    return {status: counts.get(status.value, Count(is_at_least=_is_cut(counts))) for status in unfinished}


async def _count_letters(connection: AsyncConnection) -> dict[str, Count]:
    """Count the dead letters that failed last and were not replayed, all together no further than `COUNTED`."""
    some = (
        select(dead_letters.c.consumer)
        .where(dead_letters.c.resolved_at_us.is_(None))
        .order_by(dead_letters.c.last_failed_at_us.desc())
        .limit(COUNTED + 1)
        .subquery()
    )
    return await _count_each(connection, some.c.consumer)


async def _count_each(connection: AsyncConnection, column: Any) -> dict[str, Count]:
    rows = (await connection.execute(select(column.label("value"), func.count().label("rows")).group_by(column))).all()
    is_cut = sum(row.rows for row in rows) > COUNTED
    return {row.value: Count(count=row.rows, is_at_least=is_cut) for row in sorted(rows)}


def _is_cut(counts: dict[str, Count]) -> bool:
    return any(one.is_at_least for one in counts.values())
