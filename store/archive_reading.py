"""The archive as people and alerts ask for it."""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Row, and_, case, func, literal_column, select

from schemas import FileOutcome
from store.archiving import Step, is_same
from store.reading import file_state
from store.store import Store, members, now_us
from store.tables import DUE, archived_files, archived_recordings, iso8601, recordings

#: How far a file has come; see `store.VideoArchive`.
FileState: TypeAlias = Literal["waiting", "fetching", "staged"] | FileOutcome

_file = archived_files.c

# Not as a parameter: a plan that is made for every value does not use the index of one.
_IS_DUE = _file.state == literal_column(f"'{DUE}'")


class ArchiveFileRow(Struct, frozen=True, kw_only=True):
    """A file in a listing: times as ISO 8601 text, `size` the announced one until it is known.

    `deleted_at` is when the vendor deletes it, `reason` why the last attempt failed or it will not be archived, and
    `folder` the recording's place below the target. Where attempts fail, `failing_since` is when they began to, and
    `failing_at` the step that does; `next_at` is when a file that is not archived is tried next, None while it is
    being worked on.
    """

    sdk_app_id: int
    task_id: str
    name: str
    state: FileState
    size: int | None
    fetched_bytes: int
    deleted_at: str
    attempts: int
    reason: str | None
    location: str | None
    sha256: str | None
    archived_at: str | None
    folder: str
    failing_since: str | None = None
    failing_at: Step | None = None
    next_at: str | None = None


async def list_archive_files(
    store: Store,
    *,
    state: FileState | None = None,
    task_id: str | None = None,
    app: int | None = None,
    since_us: int | None = None,
    limit: int = 1000,
) -> list[ArchiveFileRow]:
    """Return files, those of the recording that was planned last first, each recording's in the vendor's order.

    At most `limit` (0: all); `since_us`: planned then or later.
    """
    query = (
        select(*_LISTED, archived_recordings.c.folder)
        .select_from(archived_files.join(archived_recordings, is_same(archived_files, archived_recordings)))
        .order_by(_file.planned_at_us.desc(), _file.sdk_app_id, _file.task_id, _file.number)
    )
    if state is not None:
        query = query.where(_is_in_state(state))
    if task_id is not None:
        query = query.where(_file.task_id == task_id)
    if app is not None:
        query = query.where(_file.sdk_app_id == app)
    if since_us is not None:
        query = query.where(_file.planned_at_us >= since_us)
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        rows = (await connection.execute(query)).all()
    # The files of one recording may have been planned at different times.
    places: dict[tuple[int, str], int] = {}
    for row in rows:
        places.setdefault((row.sdk_app_id, row.task_id), len(places))
    return [_listed(row) for row in sorted(rows, key=lambda row: (places[row.sdk_app_id, row.task_id], row.number))]


class LocatedFile(Struct, frozen=True, kw_only=True):
    """One file of the archive, or that is to be: `key` is its place below the target.

    `reason` is why it is not archived, or the last attempt failed. `size`, `sha256` in hex and `location` are those of
    the archived bytes, None until then.
    """

    key: str
    state: FileState
    reason: str | None
    size: int | None
    sha256: str | None
    location: str | None


async def locate_archive_file(store: Store, *, sdk_app_id: int, task_id: str, file_key: str) -> LocatedFile | None:
    """Return one file of a recording, None if it is none that is archived or is to be."""
    query = (
        select(
            *(_file.name, archived_recordings.c.folder, file_state()),
            *(_file.reason, _file.size, _file.sha256, _file.location),
        )
        .select_from(archived_files.join(archived_recordings, is_same(archived_files, archived_recordings)))
        .where(_file.sdk_app_id == sdk_app_id, _file.task_id == task_id, _file.file_key == file_key)
    )
    async with store.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return LocatedFile(
        key=f"{row.folder}/{row.name}",
        state=row.file_state,
        reason=row.reason,
        size=row.size,
        sha256=row.sha256,
        location=row.location,
    )


async def is_manifest_due(store: Store, *, sdk_app_id: int, task_id: str) -> bool:
    """Say whether the manifest of a recording is still to be written."""
    archived = archived_recordings.c
    query = select(archived.state).where(archived.sdk_app_id == sdk_app_id, archived.task_id == task_id)
    async with store.reading() as connection:
        return (await connection.execute(query)).scalar_one_or_none() == DUE


_LISTED = (
    *(
        _file.sdk_app_id,
        _file.task_id,
        _file.number,
        _file.name,
        file_state(),
        _file.fetched_bytes,
        _file.attempts,
        _file.reason,
    ),
    *(_file.location, _file.sha256, _file.deadline_at_us, _file.archived_at_us),
    *(_file.failing_since_us, _file.failing_at),
    # A claim moves the time at which it is due to the end of its lease.
    case((and_(_IS_DUE, ~(func.coalesce(_file.leased_until_us, 0) > now_us())), _file.due_at_us)).label("next_at_us"),
    func.coalesce(_file.size, _file.announced_size).label("size"),
)


def _is_in_state(state: FileState) -> ColumnElement[bool]:
    # Said twice where there is an index of one of them.
    is_due = state in {"waiting", "fetching", "staged"}
    return and_(_IS_DUE, file_state().element == state) if is_due else _file.outcome == state


def _listed(row: Row[Any]) -> ArchiveFileRow:
    values = members(row)
    del values["number"]
    moments = {name: values.pop(f"{name}_us") for name in ("archived_at", "failing_since", "next_at")}
    return msgspec.convert(
        values
        | {
            "state": values.pop("file_state"),
            "deleted_at": iso8601(values.pop("deadline_at_us")),
            **{name: None if at_us is None else iso8601(at_us) for name, at_us in moments.items()},
        },
        ArchiveFileRow,
    )


class ArchiveCounts(Struct, frozen=True, kw_only=True):
    """How many files there are of each kind, and in how many seconds the vendor deletes the first that is due.

    `waiting` are to be fetched, `staged` to be placed; `failing` are those of both whose last attempt failed.
    `next_deletion_in_s` is less than 0 if it is overdue, None if no file is due.
    """

    waiting: int = 0
    staged: int = 0
    failing: int = 0
    archived: int = 0
    lost: int = 0
    refused: int = 0
    next_deletion_in_s: float | None = None


async def count_archive(store: Store) -> ArchiveCounts:
    """Count the files."""
    due = (
        select(
            _file.is_staged,
            func.count().label("files"),
            func.count(_file.failing_since_us).label("failing"),
            (func.min(_file.deadline_at_us) - now_us()).label("in_us"),
        )
        .where(_IS_DUE)
        .group_by(_file.is_staged)
    )
    ended = select(_file.outcome, func.count().label("files")).where(_file.outcome.is_not(None)).group_by(_file.outcome)
    async with store.reading() as connection:
        waiting = (await connection.execute(due)).all()
        by_outcome = {row.outcome: row.files for row in await connection.execute(ended)}
    return ArchiveCounts(
        waiting=sum(row.files for row in waiting if not row.is_staged),
        staged=sum(row.files for row in waiting if row.is_staged),
        failing=sum(row.failing for row in waiting),
        next_deletion_in_s=min((row.in_us / 1_000_000 for row in waiting), default=None),
        **by_outcome,
    )


class ExpiringFile(Struct, frozen=True, kw_only=True):
    """A file that is not archived yet and that the vendor deletes soon, at `expires_at_s` in Unix seconds."""

    sdk_app_id: int
    task_id: str
    room_id: int | None
    name: str
    expires_at_s: int


async def find_expiring_files(store: Store, *, within_s: float, limit: int) -> list[ExpiringFile]:
    """Return at most `limit` files that are due and that the vendor deletes within so many seconds, the next first.

    Those that it should have deleted already are not among them: they would stand before all others.
    """
    query = (
        select(
            *(_file.sdk_app_id, _file.task_id, recordings.c.room_id, _file.name),
            (_file.deadline_at_us // 1_000_000).label("expires_at_s"),
        )
        .select_from(archived_files.outerjoin(recordings, is_same(archived_files, recordings)))
        .where(
            _IS_DUE,
            _file.deadline_at_us > now_us(),
            _file.deadline_at_us <= now_us() + round(within_s * 1_000_000),
        )
        .order_by(_file.deadline_at_us, _file.sdk_app_id, _file.task_id, _file.file_key)
        .limit(limit)
    )
    async with store.reading() as connection:
        return [ExpiringFile(**members(row)) for row in await connection.execute(query)]


class FailingFiles(Struct, frozen=True, kw_only=True):
    """Files whose attempts fail at one step for one reason: how many, and since when in Unix seconds."""

    failing_at: str
    reason: str
    count: int
    since_s: int


async def find_failing(store: Store, *, since_us: int) -> list[FailingFiles]:
    """Return what keeps files from being archived since `since_us` or longer, what does so for longest first."""
    first_us = func.min(_file.failing_since_us)
    query = (
        select(_file.failing_at, _file.reason, func.count().label("files"), first_us.label("first_us"))
        .where(_IS_DUE, _file.failing_since_us <= since_us)
        .group_by(_file.failing_at, _file.reason)
        .order_by(first_us, _file.reason)
    )
    async with store.reading() as connection:
        return [
            FailingFiles(
                failing_at=row.failing_at or "",
                reason=row.reason or "",
                count=row.files,
                since_s=row.first_us // 1_000_000,
            )
            for row in await connection.execute(query)
        ]
