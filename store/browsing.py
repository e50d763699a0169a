"""Recordings as people look for them: page by page, the latest activity first.

`ix_recordings_active` has the order and the columns by which recordings are chosen, so that what is not asked for is
passed over without a look at the recording. What stands in other tables - found late, contradicted, not archived - is
little as a rule, and then found there. Where it is not, recordings are walked in their order and looked up one by one,
as they are for a teacher's name; see `store.paging`.
"""

from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, FromClause, Row, Select, and_, case, exists, func, literal_column, select

from schemas import OnlineRecordStarted, RecordingStatus
from store.archive_reading import ArchiveFileRow, list_archive_files
from store.connection import AsyncConnection
from store.paging import (
    BigInt,
    Page,
    Walk,
    Walked,
    behind,
    browsing,
    check_numbers,
    count,
    found,
    newest_first,
    place_of,
    walk,
)
from store.questions import RecordingQuestion, find_question
from store.reading import SUMMARY, find_recordings, is_test, summary_of
from store.recording import Recording, RecordingSummary
from store.statements import Dialect
from store.store import Store
from store.tables import END_OF_YEARS_S, IS_MARKED, archived_files, archived_recordings, events, recordings, storable

#: How far the archive of a recording has come: `lost` if a file was lost or refused and none is to be fetched any more.
ArchiveState: TypeAlias = Literal["archived", "waiting", "lost"]

#: What stands in another table is found there, and sorted, if there is no more of it than this.
FEW: Final = 5000

#: Recordings of which events are looked up, at most for one page.
_LOOKED_UP: Final = 5000

_ORDER: Final = (recordings.c.active_at_us, recordings.c.sdk_app_id, recordings.c.task_id)
_Place: TypeAlias = tuple[BigInt, BigInt, str]


class RecordingFilter(Struct, frozen=True, kw_only=True):
    """Which recordings: all that is given must be so. `task` is a TaskId, or the beginning of one and `*`.

    `teacher` is the RecordUserId, or whose stream one of the files is. Times are microseconds since the Unix epoch and
    compared with the latest activity, `until_us` excluded. `not_archived`: files of it are planned to be archived, and
    are not.
    """

    app: int | None = None
    task: str | None = None
    room: int | None = None
    teacher: str | None = None
    status: RecordingStatus | None = None
    from_us: int | None = None
    until_us: int | None = None
    failed: bool = False
    found_late: bool = False
    contradicted: bool = False
    not_archived: bool = False


_ALL: Final = RecordingFilter()


class ListedRecording(Struct, frozen=True, kw_only=True):
    """A recording in a listing. `active_at_us` is when the latest of its events that count was accepted.

    `started_s` is when it began, in Unix seconds: as its end tells, else the Timestamp of its Started event; None where
    neither tells a time that can be one.
    `archive` is None where no file of it is to be archived. `found_late`: an event of it was found by asking the
    vendor; `contradicted`: the vendor contradicts one; `is_test`: all its events are of a test.
    """

    summary: RecordingSummary
    active_at_us: int
    started_s: int | None = None
    archive: ArchiveState | None
    found_late: bool
    contradicted: bool
    is_test: bool


async def search_recordings(
    store: Store, chosen: RecordingFilter, *, after: str | None = None, limit: int = 50
) -> Page[ListedRecording]:
    """Return recordings, the latest activity first, behind the cursor `after`.

    Raises `ValueError` for a wrong cursor, or a number that no column holds; `StoreUnavailableError` and
    `SchemaMismatchError`.
    """
    place = place_of(after, _Place)
    check_numbers(chosen.app, chosen.room, chosen.from_us, chosen.until_us)
    async with browsing(store) as connection:
        walked = await _search(store.dialect, connection, chosen, place, limit)
        rows = await _show(store.dialect, connection, [tuple(row) for row in walked.rows])
    return walked.page([_listed(row) for row in rows])


async def list_recordings(store: Store, chosen: RecordingFilter = _ALL, *, limit: int = 1000) -> list[RecordingSummary]:
    """Return recordings, the latest activity first, at most `limit` (0: all), however long that takes.

    Raises `ValueError` for a number that no column holds; `StoreUnavailableError` and `SchemaMismatchError`.
    """
    check_numbers(chosen.app, chosen.room, chosen.from_us, chosen.until_us)
    elsewhere = [one.is_it for name, one in ELSEWHERE.items() if getattr(chosen, name)]
    conditions = [*_within(chosen), *_conditions(chosen), *_by_user(store.dialect, chosen), *elsewhere]
    query = select(*SUMMARY).where(*conditions).order_by(*newest_first(_ORDER))
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        return [summary_of(row) for row in await connection.execute(query)]


class _Elsewhere(NamedTuple):
    """What another table says of recordings: `rows` of which, and whether one recording `is_it`."""

    rows: Select[Any]
    is_it: ColumnElement[bool]


def _is_of(table: FromClause) -> ColumnElement[bool]:
    return and_(table.c.sdk_app_id == recordings.c.sdk_app_id, table.c.task_id == recordings.c.task_id)


def _by_events(condition: ColumnElement[bool], *indexed: ColumnElement[bool]) -> _Elsewhere:
    # Those without a TaskId are of no recording. To say so here would have SQLite take the index of all that have one.
    keys = select(events.c.sdk_app_id, events.c.task_id).where(condition, *indexed)
    return _Elsewhere(keys, exists().where(_is_of(events), events.c.task_id.is_not(None), condition))


# Not as parameters: a plan that is made for every value does not use the index of one.
_FOUND_LATE: Final = _by_events(events.c.source == literal_column("'reconcile'"), IS_MARKED)
_CONTRADICTED: Final = _by_events(literal_column("events.contradicted"))
_is_open: Final = archived_recordings.c.archived_at_us.is_(None)
_NOT_ARCHIVED: Final = _Elsewhere(
    select(archived_recordings.c.sdk_app_id, archived_recordings.c.task_id).where(_is_open),
    exists().where(_is_of(archived_recordings), _is_open),
)

#: By the names of the filter's members.
ELSEWHERE: Final = {"contradicted": _CONTRADICTED, "found_late": _FOUND_LATE, "not_archived": _NOT_ARCHIVED}


async def _search(
    dialect: Dialect, connection: AsyncConnection, chosen: RecordingFilter, place: _Place | None, limit: int
) -> Walked:
    """Find places of recordings."""
    elsewhere = [ELSEWHERE[name] for name in ELSEWHERE if getattr(chosen, name)]
    looked_up = _by_user(dialect, chosen)
    few = [one for one in elsewhere if not (await count(connection, one.rows, up_to=FEW)).is_at_least][:1]
    looked_up += [one.is_it for one in elsewhere if one not in few]
    is_one = chosen.task is not None and not chosen.task.endswith("*")
    if few or is_one:
        query = select(*_ORDER).where(*_within(chosen), *_conditions(chosen), *looked_up, *behind(_ORDER, place))
        if few:
            those = few[0].rows.distinct().subquery("few")
            query = query.select_from(those.join(recordings, _is_of(those)))
        query = query.order_by(*newest_first(_ORDER)).limit(limit + 1)
        return found(_ORDER, (await connection.execute(query)).all(), limit=limit)
    way = Walk(
        order=_ORDER,
        after=place,
        within=_within(chosen),
        indexed=_conditions(chosen, dialect),
        looked_up=looked_up,
    )
    if elsewhere:
        way.rows_looked_at = _LOOKED_UP
    return await walk(connection, way, limit=limit)


def _within(chosen: RecordingFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if chosen.from_us is not None:
        conditions.append(recordings.c.active_at_us >= chosen.from_us)
    if chosen.until_us is not None:
        conditions.append(recordings.c.active_at_us < chosen.until_us)
    return conditions


def _by_user(dialect: Dialect, chosen: RecordingFilter) -> list[ColumnElement[bool]]:
    return [] if chosen.teacher is None else [dialect.has_user(storable(chosen.teacher))]


def _conditions(chosen: RecordingFilter, walked: Dialect | None = None) -> list[ColumnElement[bool]]:
    """Return the conditions on columns of `ix_recordings_active`; `walked`: it is to be taken, and no other."""
    app, task = (
        column if walked is None else walked.unindexed(column)
        for column in (recordings.c.sdk_app_id, recordings.c.task_id)
    )
    conditions: list[ColumnElement[bool]] = []
    if chosen.app is not None:
        conditions.append(app == chosen.app)
    if chosen.task is not None:
        name = storable(chosen.task)
        start = name.removesuffix("*")
        # The greatest character that there is stands for all that may follow.
        conditions.append(task == name if start == name else and_(task >= start, task < f"{start}\U0010ffff"))
    if chosen.room is not None:
        conditions.append(recordings.c.room_id == chosen.room)
    if chosen.status is not None:
        conditions.append(recordings.c.status == chosen.status.value)
    if chosen.failed:
        conditions.append(recordings.c.failed)
    return conditions


async def _show(dialect: Dialect, connection: AsyncConnection, places: list[tuple[Any, ...]]) -> list[Row[Any]]:
    """Return what is shown of the recordings at these places, in their order."""
    wanted = dialect.wanted_keys()
    query = select(
        *SUMMARY,
        _started_s().label("started_s"),
        _archive().label("archive"),
        _FOUND_LATE.is_it.label("found_late"),
        _CONTRADICTED.is_it.label("contradicted"),
        is_test(recordings).label("is_test"),
    ).select_from(wanted.join(recordings, _is_of(wanted)))
    parameters = dialect.keys_parameters([(app, task) for _, app, task in places])
    rows = {(row.sdk_app_id, row.task_id): row for row in await connection.execute(query, parameters)}
    return [rows[app, task] for _, app, task in places]


def _started_s() -> ColumnElement[int]:
    told, at_s = recordings.c.record_start_time, events.c.timestamp
    # Of events that the vendor contradicts only where there is no other, as everywhere.
    latest = func.coalesce(func.max(case((~events.c.contradicted, at_s))), func.max(at_s))
    is_start = events.c.routing_key == literal_column(f"'{OnlineRecordStarted.__name__}'")
    of_it = and_(_is_of(events), events.c.task_id.is_not(None), is_start, at_s.between(1, END_OF_YEARS_S - 1))
    started = select(latest).where(of_it).correlate(recordings).scalar_subquery()
    return case((told.between(1, END_OF_YEARS_S - 1), told), else_=started)


def _archive() -> ColumnElement[str]:
    outcome = archived_files.c.outcome
    of_it = and_(
        archived_files.c.sdk_app_id == archived_recordings.c.sdk_app_id,
        archived_files.c.task_id == archived_recordings.c.task_id,
    )
    is_due = exists().where(of_it, outcome.is_(None)).correlate(archived_recordings)
    is_lost = exists().where(of_it, outcome.in_(("lost", "refused"))).correlate(archived_recordings)
    is_archived = archived_recordings.c.archived_at_us.is_not(None)
    state = case((is_archived, "archived"), (and_(is_lost, ~is_due), "lost"), else_="waiting")
    return select(state).where(_is_of(archived_recordings)).correlate(recordings).scalar_subquery()


def _listed(row: Row[Any]) -> ListedRecording:
    return ListedRecording(
        summary=summary_of(row),
        active_at_us=row.active_at_us,
        started_s=row.started_s,
        archive=row.archive,
        found_late=bool(row.found_late),
        contradicted=bool(row.contradicted),
        is_test=bool(row.is_test),
    )


class RecordingDetails(Struct, frozen=True, kw_only=True):
    """A recording with all that is known around it.

    `listed` is it as in a listing, `archive` its files that are to be archived, in the vendor's order, and `question`
    what the vendor is or was asked about it, None if nothing.
    """

    recording: Recording
    listed: ListedRecording
    archive: list[ArchiveFileRow]
    question: RecordingQuestion | None

    @property
    def active_at_us(self) -> int:
        """When the latest of its events that count was accepted."""
        return self.listed.active_at_us


async def find_recording_details(store: Store, app: int, task: str) -> RecordingDetails | None:
    """Return all that is known of a recording, None if there is none. Raises as `search_recordings` does."""
    check_numbers(app)
    task = storable(task)
    async with browsing(store) as connection:
        is_of_it = and_(recordings.c.sdk_app_id == app, recordings.c.task_id == task)
        places = (await connection.execute(select(*_ORDER).where(is_of_it))).all()
        listed = [_listed(row) for row in await _show(store.dialect, connection, [tuple(row) for row in places])]
    recordings_found = await find_recordings(store, task, app=app) if listed else []
    if not recordings_found:
        return None
    return RecordingDetails(
        recording=recordings_found[0],
        listed=listed[0],
        archive=await list_archive_files(store, app=app, task_id=task, limit=0),
        question=await find_question(store, app, task),
    )
