"""How much there is of what somebody may have to look at. Counts stop at `COUNTED`: nobody reads on."""

from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas import RecordingStatus
from store.browsing import RecordingFilter, recording_keys
from store.paging import browsing
from store.store import Store, now_us
from store.tables import dead_letters, events

#: Counts stop here.
COUNTED: Final = 10_000


class Count(Struct, frozen=True, kw_only=True):
    """How many there are, or with `is_at_least` that there are more than these."""

    count: int = 0
    is_at_least: bool = False


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
    """Count what there is."""
    async with browsing(store) as connection:

        async def some(**chosen: Any) -> Count:
            return await _count(connection, recording_keys(store.dialect, RecordingFilter(**chosen)))

        async def accepted_within(seconds: int) -> Count:
            since = events.c.received_at_us >= now_us() - seconds * 1_000_000
            return await _count(connection, select(events.c.received_at_us).where(since))

        return Overview(
            by_status={status: await some(status=status) for status in RecordingStatus},
            failed=await some(failed=True),
            contradicted=await some(contradicted=True),
            found_late=await some(found_late=True),
            not_archived=await some(not_archived=True),
            events_last_minute=await accepted_within(60),
            events_last_hour=await accepted_within(3600),
            events_last_day=await accepted_within(86_400),
            dead_letters=await _count_letters(connection),
        )


async def _count(connection: AsyncConnection, rows: Select[Any]) -> Count:
    some = rows.limit(COUNTED + 1).subquery()
    count = (await connection.execute(select(func.count()).select_from(some))).scalar_one()
    return Count(count=min(count, COUNTED), is_at_least=count > COUNTED)


async def _count_letters(connection: AsyncConnection) -> dict[str, Count]:
    is_open = dead_letters.c.resolved_at_us.is_(None)
    names = (await connection.execute(select(dead_letters.c.consumer).where(is_open).distinct())).scalars().all()
    counts = {}
    for name in sorted(names):
        of_consumer = select(dead_letters.c.event_id).where(is_open, dead_letters.c.consumer == name)
        counts[name] = await _count(connection, of_consumer)
    return counts
