"""What is known already: of which applications and rooms there are recordings, and how far each has come."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Final

from msgspec import Struct
from sqlalchemy import delete, exists, func, or_, select

from schemas import RecordingStatus
from store.connection import AsyncConnection
from store.reading import is_test
from store.store import MAX_VALUES, Store, chunks, now_us
from store.tables import DONE, events, recording_questions, recordings, unaccounted_rooms

_question = recording_questions.c

#: Days are China's: https://cloud.tencent.com/document/product/1137/40049
_CHINA: Final = timezone(timedelta(hours=8))

_UNACCOUNTED_KEPT_US: Final = 366 * 86_400 * 1_000_000


async def known_apps(store: Store) -> frozenset[int]:
    """Return the applications of which there is a recording, no test, or a question about one. Raises `StoreError`s."""
    found: set[int] = set()
    async with store.reading() as connection:
        for column in (recordings.c.sdk_app_id, _question.sdk_app_id):
            # From one to the next in the primary key: there are few, and many rows of each.
            app: int | None = 0
            while (app := await connection.scalar(select(func.min(column)).where(column > app))) is not None:
                found.add(app)
        for app in [*found]:
            # Nothing of an application that was only tried is the vendor's.
            is_real = exists().where(recordings.c.sdk_app_id == app, ~is_test(recordings))
            is_asked = exists().where(_question.sdk_app_id == app)
            if not await connection.scalar(select(or_(is_real, is_asked))):
                found.discard(app)
    return frozenset(found)


async def recent_rooms(store: Store, sdk_app_id: int, *, within_s: float) -> list[int]:
    """Return an application's rooms with a recording of which an event came within this time, in order."""
    query = (
        select(recordings.c.room_id)
        .where(
            recordings.c.sdk_app_id == sdk_app_id,
            recordings.c.room_id.is_not(None),
            recordings.c.active_at_us > now_us() - round(within_s * 1_000_000),
            ~is_test(recordings),
        )
        .distinct()
        .order_by(recordings.c.room_id)
    )
    async with store.reading() as connection:
        return [*(await connection.execute(query)).scalars()]


class Progress(Struct, frozen=True, kw_only=True):
    """How far a recording has come: None while no event tells of it.

    `is_settled`: nothing more is asked about it. `asked_ago_s`: so long ago the vendor last answered.
    """

    status: RecordingStatus | None = None
    is_settled: bool = False
    asked_ago_s: float | None = None


async def find_progress(store: Store, sdk_app_id: int, task_ids: Collection[str]) -> dict[str, Progress]:
    """Return how far each of these recordings has come."""
    progress = {task_id: Progress() for task_id in task_ids}
    async with store.reading() as connection:
        for part in chunks(sorted(progress), MAX_VALUES):
            statuses = await _statuses(connection, sdk_app_id, part)
            query = select(
                _question.task_id, _question.state, (now_us() - _question.answered_at_us).label("ago_us")
            ).where(_question.sdk_app_id == sdk_app_id, _question.task_id.in_(part))
            questions = {row.task_id: row for row in await connection.execute(query)}
            for task_id in part:
                asked = questions.get(task_id)
                progress[task_id] = Progress(
                    status=statuses.get(task_id),
                    is_settled=asked is not None and asked.state == DONE,
                    asked_ago_s=None if asked is None or asked.ago_us is None else asked.ago_us / 1_000_000,
                )
    return progress


async def _statuses(
    connection: AsyncConnection, sdk_app_id: int, task_ids: Sequence[str]
) -> dict[str, RecordingStatus]:
    query = select(recordings.c.task_id, recordings.c.status).where(
        recordings.c.sdk_app_id == sdk_app_id, recordings.c.task_id.in_(task_ids)
    )
    return {row.task_id: RecordingStatus(row.status) for row in await connection.execute(query)}


class UnaccountedRoom(Struct, frozen=True, kw_only=True):
    """A room that the vendor recorded for so many minutes on a day (`YYYY-MM-DD`, China's), and nobody knows of."""

    sdk_app_id: int
    day: str
    room_id: int
    minutes: int


async def known_rooms(store: Store, sdk_app_id: int, day: date) -> frozenset[int]:
    """Return an application's rooms with a recording that went on at some time of a day of China's."""
    midnight = datetime.combine(day, time(), _CHINA)
    since, until = (int((midnight + timedelta(days=days)).timestamp()) for days in (0, 1))
    of_its_events = select(func.min(events.c.timestamp)).where(
        events.c.sdk_app_id == recordings.c.sdk_app_id, events.c.task_id == recordings.c.task_id
    )
    # A failed recording has 0 for both times.
    began_at = func.coalesce(func.nullif(recordings.c.record_start_time, 0), of_its_events.scalar_subquery())
    stopped_at = func.nullif(recordings.c.record_stop_time, 0)
    query = (
        select(recordings.c.room_id)
        .where(
            recordings.c.sdk_app_id == sdk_app_id,
            recordings.c.room_id.is_not(None),
            # An event is accepted after what it tells of; clocks may differ by some minutes.
            recordings.c.active_at_us >= (since - 3600) * 1_000_000,
            began_at < until,
            or_(stopped_at.is_(None), stopped_at >= since),
            # It would hide a class of this room that nothing is known of.
            ~is_test(recordings),
        )
        .distinct()
    )
    async with store.reading() as connection:
        return frozenset((await connection.execute(query)).scalars())


async def keep_unaccounted(store: Store, rooms: Sequence[UnaccountedRoom]) -> list[UnaccountedRoom]:
    """Keep rooms of which nothing is known, durable on return; return those that were not kept before.

    Those that were found more than a year ago are forgotten: their files are gone since.
    """
    new: list[UnaccountedRoom] = []

    async def operation(connection: AsyncConnection) -> None:
        new.clear()
        for one in sorted(rooms, key=lambda room: (room.sdk_app_id, room.day, room.room_id)):
            insert = store.dialect.insert(unaccounted_rooms).values(
                sdk_app_id=one.sdk_app_id,
                day=one.day,
                room_id=one.room_id,
                minutes=one.minutes,
                found_at_us=now_us(),
            )
            if (await connection.execute(insert.on_conflict_do_nothing())).rowcount:
                new.append(one)
        is_old = unaccounted_rooms.c.found_at_us < now_us() - _UNACCOUNTED_KEPT_US
        await connection.execute(delete(unaccounted_rooms).where(is_old))

    if rooms:
        await store.write(operation)
    return new


async def find_unaccounted(store: Store, *, since: date | None = None) -> list[UnaccountedRoom]:
    """Return the rooms that were recorded on a day (`since`: that or a later one) and of which nothing is known yet.

    The latest day first. One whose recording was found since is not among them any more.
    """
    columns = unaccounted_rooms.c
    query = select(columns.sdk_app_id, columns.day, columns.room_id, columns.minutes).order_by(
        columns.day.desc(), columns.sdk_app_id, columns.room_id
    )
    if since is not None:
        query = query.where(columns.day >= since.isoformat())
    async with store.reading() as connection:
        kept = [UnaccountedRoom(**row) for row in (await connection.execute(query)).mappings()]
    known = {
        (app, day): await known_rooms(store, app, date.fromisoformat(day))
        for app, day in {(one.sdk_app_id, one.day) for one in kept}
    }
    return [one for one in kept if one.room_id not in known[one.sdk_app_id, one.day]]
