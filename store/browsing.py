"""Recordings as people look for them: page by page, the latest activity first.

`ix_recordings_active` has the order and every column by which recordings are chosen, so that what does not match is
passed over without a look at the recording. What stands in other tables - found late, contradicted, not archived - is
few as a rule, and then found there; where it is not, recordings are walked in their order and looked up one by one, as
they are for a teacher's name: at most `LOOKED_AT` for one page, which then says how far it came.
"""

from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Select, and_, case, exists, literal_column, select

from schemas import RecordingStatus
from store.archive_reading import ArchiveFileRow, list_archive_files
from store.paging import BigInt, Page, behind, browsing, cursor, place_of
from store.questions import RecordingQuestion, find_question
from store.reading import SUMMARY, find_recordings, summary_of
from store.recording import Recording, RecordingSummary
from store.statements import Dialect
from store.store import Store
from store.tables import (
    archived_files,
    archived_recordings,
    events,
    recordings,
    storable,
)

#: How far the archive of a recording has come: `lost` if a file was lost or refused and none is to be fetched any more.
ArchiveState: TypeAlias = Literal["archived", "waiting", "lost"]

#: Recordings of another table are sorted if there are no more of them than this.
FEW: Final = 5000

#: Recordings that are looked up one by one for a page.
LOOKED_AT: Final = 20_000

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


class ListedRecording(Struct, frozen=True, kw_only=True):
    """A recording in a listing. `active_at_us` is when the latest of its events that count was accepted.

    `archive` is None where no file of it is to be archived. `found_late`: an event of it was found by asking the
    vendor; `contradicted`: the vendor contradicts one; `is_test`: it is made of test callbacks.
    """

    summary: RecordingSummary
    active_at_us: int
    archive: ArchiveState | None
    found_late: bool
    contradicted: bool
    is_test: bool


async def search_recordings(
    store: Store,
    chosen: RecordingFilter,
    *,
    after: str | None = None,
    limit: int = 50,
) -> Page[ListedRecording]:
    """Return recordings, the latest activity first, behind the cursor `after`. Raises `ValueError` for a wrong one."""
    place = place_of(after, _Place)
    async with browsing(store) as connection:
        keys = recording_keys(store.dialect, chosen).where(*behind(_ORDER, place))
        keys = keys.order_by(*(one.desc() for one in _ORDER)).limit(limit + 1)
        rows = (await connection.execute(_shown(keys))).all()
    shown = [_listed(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Page(rows=shown)
    last = shown[-1]
    return Page(rows=shown, next=cursor((last.active_at_us, last.summary.sdk_app_id, last.summary.task_id)))


def recording_keys(dialect: Dialect, chosen: RecordingFilter) -> Select[Any]:
    """Select the places of the recordings that a filter chooses, in no order."""
    teacher = chosen.teacher
    conditions = (
        (chosen.app, recordings.c.sdk_app_id == chosen.app),
        (chosen.task, _is_task(chosen.task or "")),
        (chosen.room, recordings.c.room_id == chosen.room),
        (chosen.status, recordings.c.status == chosen.status),
        (chosen.failed or None, recordings.c.failed),
        (chosen.from_us, recordings.c.active_at_us >= (chosen.from_us or 0)),
        (chosen.until_us, recordings.c.active_at_us < (chosen.until_us or 0)),
        (chosen.found_late or None, _is_found_late()),
        (chosen.contradicted or None, _is_contradicted()),
        (chosen.not_archived or None, _is_not_archived()),
        (teacher, dialect.has_user(storable(teacher or ""))),
    )
    return select(*_ORDER).where(*(condition for value, condition in conditions if value is not None))


def _is_task(task: str) -> ColumnElement[bool]:
    name = storable(task)
    if not name.endswith("*"):
        return recordings.c.task_id == name
    start = name[:-1]
    # The greatest character that there is: as long as no TaskId has it behind the beginning, none is left out.
    return and_(recordings.c.task_id >= start, recordings.c.task_id < start + "\U0010ffff")


def _is_found_late() -> ColumnElement[bool]:
    return _event_of_it(events.c.source == literal_column("'reconcile'"))


def _is_test() -> ColumnElement[bool]:
    return _event_of_it(events.c.source == literal_column("'test'"))


def _is_contradicted() -> ColumnElement[bool]:
    return _event_of_it(literal_column("events.contradicted"))


def _event_of_it(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(
        events.c.sdk_app_id == recordings.c.sdk_app_id,
        events.c.task_id == recordings.c.task_id,
        events.c.task_id.is_not(None),
        condition,
    )


def _is_not_archived() -> ColumnElement[bool]:
    return exists().where(_is_of(archived_recordings), archived_recordings.c.archived_at_us.is_(None))


def _is_of(table: Any) -> ColumnElement[bool]:
    return and_(table.c.sdk_app_id == recordings.c.sdk_app_id, table.c.task_id == recordings.c.task_id)


def _archive() -> ColumnElement[str]:
    is_due = exists().where(_is_of(archived_files), archived_files.c.outcome.is_(None))
    is_lost = exists().where(_is_of(archived_files), archived_files.c.outcome.in_(("lost", "refused")))
    state = case(
        (archived_recordings.c.archived_at_us.is_not(None), "archived"),
        (and_(is_lost, ~is_due), "lost"),
        else_="waiting",
    )
    return select(state).where(_is_of(archived_recordings)).scalar_subquery()


def _shown(keys: Select[Any]) -> Select[Any]:
    page = keys.subquery("page")
    is_same = and_(page.c.sdk_app_id == recordings.c.sdk_app_id, page.c.task_id == recordings.c.task_id)
    return (
        select(
            *SUMMARY,
            _archive().label("archive"),
            _is_found_late().label("found_late"),
            _is_contradicted().label("is_contradicted"),
            _is_test().label("is_test"),
        )
        .select_from(page.join(recordings, is_same))
        .order_by(*(one.desc() for one in _ORDER))
    )


def _listed(row: Row[Any]) -> ListedRecording:
    return ListedRecording(
        summary=summary_of(row),
        active_at_us=row.active_at_us,
        archive=row.archive,
        found_late=bool(row.found_late),
        contradicted=bool(row.is_contradicted),
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
    """Return all that is known of a recording, None if there is none."""
    task = storable(task)
    found = await find_recordings(store, task, app=app)
    page = await search_recordings(store, RecordingFilter(app=app, task=task), limit=1) if found else None
    if page is None or not page.rows:
        return None
    return RecordingDetails(
        recording=found[0],
        listed=page.rows[0],
        archive=await list_archive_files(store, app=app, task_id=task, limit=0),
        question=await find_question(store, app, task),
    )
