"""How much there is of what somebody may have to look at. Counts stop at `COUNTED`: nobody reads on."""

from collections import Counter
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Select, and_, func, literal_column, select

from schemas import UNRECOGNIZED, RecordingStatus
from store.browsing import ELSEWHERE
from store.connection import AsyncConnection
from store.paging import Count, browsing, count
from store.reading import is_test
from store.store import Store, now_us
from store.tables import IS_MARKED, dead_letters, events, recordings

#: Counts stop here.
COUNTED: Final = 10_000

#: Events of tests, as the index of few events has them.
_OF_A_TEST: Final = and_(IS_MARKED, events.c.source == literal_column("'test'"))


class Overview(Struct, frozen=True, kw_only=True):
    """How much there is, without what is of tests. Recordings are as `RecordingFilter` chooses them.

    Of those that are FINISHED the ones with an error are not in `by_status`, but in `failed`. Events are those that
    were accepted since; `unrecognized_last_day` are among them, `tests_last_day` are those of tests. `dead_letters` are
    those that were not replayed, of tests, too, by consumer; consumers without any are absent.
    """

    by_status: dict[RecordingStatus, Count]
    failed: Count
    contradicted: Count
    found_late: Count
    not_archived: Count
    events_last_minute: Count
    events_last_hour: Count
    events_last_day: Count
    unrecognized_last_day: Count
    tests_last_day: Count
    dead_letters: dict[str, Count]


async def count_overview(store: Store) -> Overview:
    """Count what there is. Raises `StoreUnavailableError` and `SchemaMismatchError`."""
    async with browsing(store) as connection:
        now: int = (await connection.execute(select(now_us()))).scalar_one()
        elsewhere: dict[str, Count] = {}
        for name, one in ELSEWHERE.items():
            some = one.rows.limit(COUNTED + 1).subquery()
            different = select(some).where(some.c.task_id.is_not(None)).distinct()
            elsewhere[name] = await count(connection, different, up_to=COUNTED)
        in_order = select(recordings.c.active_at_us).order_by(recordings.c.active_at_us.desc())
        finished = in_order.where(recordings.c.status == RecordingStatus.FINISHED.value)
        tests = await _count_tests(connection)
        ended_well = finished.where(~recordings.c.failed)
        ended_badly = finished.where(recordings.c.failed)
        last_day = _accepted_since(now - 86_400_000_000)
        tests_last_day = await count(connection, last_day.where(_OF_A_TEST), up_to=COUNTED)
        return Overview(
            by_status={
                **await _count_unfinished(connection, tests),
                RecordingStatus.FINISHED: await _count_others(
                    connection, ended_well, tests=tests[RecordingStatus.FINISHED, False]
                ),
            },
            failed=await _count_others(connection, ended_badly, tests=tests[RecordingStatus.FINISHED, True]),
            events_last_minute=await _count_events(connection, _accepted_since(now - 60_000_000)),
            events_last_hour=await _count_events(connection, _accepted_since(now - 3_600_000_000)),
            events_last_day=await _count_others(connection, last_day, tests=tests_last_day.count),
            unrecognized_last_day=await _count_events(
                connection, last_day.where(events.c.routing_key == literal_column(f"'{UNRECOGNIZED}'"))
            ),
            tests_last_day=tests_last_day,
            dead_letters=await _count_letters(connection),
            **elsewhere,
        )


# No index of all recordings, or of all events, says what is of a test. But tests are few, and found by an index of
# their own: so they are counted, and taken off.


async def _count_tests(connection: AsyncConnection) -> Counter[tuple[RecordingStatus, bool]]:
    """Count the recordings of tests by their status, and whether they failed."""
    some = select(events.c.sdk_app_id, events.c.task_id).where(_OF_A_TEST).limit(COUNTED).subquery()
    those = select(some).where(some.c.task_id.is_not(None)).distinct().subquery()
    is_of_it = and_(recordings.c.sdk_app_id == those.c.sdk_app_id, recordings.c.task_id == those.c.task_id)
    key = (recordings.c.status, recordings.c.failed)
    query = select(*key, func.count().label("rows")).select_from(those.join(recordings, is_of_it))
    rows = await connection.execute(query.where(is_test(recordings)).group_by(*key))
    return Counter({(RecordingStatus(row.status), bool(row.failed)): row.rows for row in rows})


async def _count_others(connection: AsyncConnection, rows: Select[Any], *, tests: int) -> Count:
    """Count rows, no further than `COUNTED`, of which so many are of tests."""
    counted = await count(connection, rows, up_to=COUNTED + tests)
    # Between two statements what is too old may be deleted.
    return Count(count=max(0, counted.count - tests), is_at_least=counted.is_at_least)


def _accepted_since(since_us: int) -> Select[Any]:
    return select(events.c.received_at_us).where(events.c.received_at_us >= since_us)


async def _count_events(connection: AsyncConnection, rows: Select[Any]) -> Count:
    tests = await count(connection, rows.where(_OF_A_TEST), up_to=COUNTED)
    return await _count_others(connection, rows, tests=tests.count)


async def _count_unfinished(
    connection: AsyncConnection, tests: Counter[tuple[RecordingStatus, bool]]
) -> dict[RecordingStatus, Count]:
    """Count recordings that are not finished, all together no further than `COUNTED`."""
    unfinished = [status for status in RecordingStatus if status is not RecordingStatus.FINISHED]
    of_tests = {status: tests[status, False] + tests[status, True] for status in unfinished}
    up_to = COUNTED + sum(of_tests.values())
    # As the index has it.
    is_unfinished = recordings.c.status != literal_column(f"'{RecordingStatus.FINISHED.value}'")
    some = select(recordings.c.status).where(is_unfinished).limit(up_to + 1).subquery()
    counts = await _count_each(connection, some.c.status, up_to=up_to)
    none = Count(is_at_least=_is_cut(counts))
    counted = {status: counts.get(status.value, none) for status in unfinished}
    return {
        status: Count(count=max(0, one.count - of_tests[status]), is_at_least=one.is_at_least)
        for status, one in counted.items()
    }


async def _count_letters(connection: AsyncConnection) -> dict[str, Count]:
    """Count the dead letters that failed last and were not replayed, all together no further than `COUNTED`."""
    some = (
        select(dead_letters.c.consumer)
        .where(dead_letters.c.resolved_at_us.is_(None))
        .order_by(dead_letters.c.last_failed_at_us.desc())
        .limit(COUNTED + 1)
        .subquery()
    )
    return await _count_each(connection, some.c.consumer, up_to=COUNTED)


async def _count_each(connection: AsyncConnection, column: Any, *, up_to: int) -> dict[str, Count]:
    rows = (await connection.execute(select(column.label("value"), func.count().label("rows")).group_by(column))).all()
    is_cut = sum(row.rows for row in rows) > up_to
    return {row.value: Count(count=row.rows, is_at_least=is_cut) for row in sorted(rows)}


def _is_cut(counts: dict[str, Count]) -> bool:
    return any(one.is_at_least for one in counts.values())
