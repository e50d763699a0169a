"""Kept events and recordings, as people ask for them."""

from collections.abc import AsyncIterator, Collection, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import (
    ColumnElement,
    Label,
    Row,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    literal_column,
    select,
    tuple_,
)

from schemas import UNRECOGNIZED, RecordingStatus, file_key
from store.connection import AsyncConnection
from store.recording import (
    TEST_SOURCE,
    Recording,
    RecordingEventRef,
    RecordingSummary,
    VideoArchive,
    list_findings,
)
from store.statements import Dialect, RecordingKey
from store.store import MAX_VALUES, Store, chunks, members, now_us
from store.tables import archived_files, events, iso8601, recording_questions, recordings, shown_body, storable


class EventRow(Struct, frozen=True, kw_only=True):
    """An event in a listing: `timestamp` in Unix seconds, `received_at` (first acceptance) as ISO 8601 text.

    `event_type` and `timestamp` are None where an unrecognized callback has no usable ones, `task_id` where the
    event belongs to no recording. `source` is empty for a callback, `reconcile` for what the vendor answered when it
    was asked, `test` for what somebody sent to try the consumers; `verified` says whether the vendor confirms the
    event, None until it was asked. The body is there only if it was asked for.
    """

    event_id: str
    event_type: str | None
    sdk_app_id: int
    task_id: str | None
    timestamp: int | None
    received_at: str
    source: str
    verified: bool | None
    body: str | UnsetType = UNSET
    body_base64: str | UnsetType = UNSET


class KeptRow(Struct, frozen=True, kw_only=True):
    """A kept event as it is published again, or compared with what the vendor answers; see `KeptEvent`."""

    event_id: str
    routing_key: str
    received_at_us: int
    body: bytes
    source: str = ""
    verified: bool | None = None


def is_test(table: Table) -> ColumnElement[bool]:
    """Say whether the recording of a row of `table` is of a test: there are events of it, all of one."""
    of_it = exists().where(
        events.c.sdk_app_id == table.c.sdk_app_id, events.c.task_id == table.c.task_id, events.c.task_id.is_not(None)
    )
    return and_(of_it.where(events.c.source == TEST_SOURCE), ~of_it.where(events.c.source != TEST_SOURCE))


LISTED_EVENT = (
    events.c.event_id,
    events.c.event_type,
    events.c.sdk_app_id,
    events.c.task_id,
    events.c.timestamp,
    events.c.received_at_us,
    events.c.source,
    events.c.verified,
)
_KEPT = tuple(events.c[name] for name in KeptRow.__struct_fields__)


async def count_events(store: Store) -> int:
    """Return how many different events are kept."""
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(events))).scalar_one()


async def pages_for_replay(
    store: Store,
    *,
    event_types: Collection[str],
    unrecognized: bool,
    since_us: int | None = None,
    task_id: str | None = None,
    event_id: str | None = None,
    page: int = 500,
) -> AsyncIterator[list[KeptRow]]:
    """Yield the events of `event_types`, and the unrecognized ones if asked, the first accepted first, in pages.

    Those that are accepted after the start are not among them: consumers get them anyway. No transaction is open
    between two pages.
    """
    keys = [*event_types, UNRECOGNIZED] if unrecognized else [*event_types]
    place = tuple_(events.c.received_at_us, events.c.event_id)
    query = select(*_KEPT).where(events.c.routing_key.in_(keys)).order_by(events.c.received_at_us, events.c.event_id)
    if since_us is not None:
        query = query.where(events.c.received_at_us >= since_us)
    if task_id is not None:
        query = query.where(events.c.task_id == storable(task_id))
    if event_id is not None:
        query = query.where(events.c.event_id == storable(event_id))
    async with store.reading() as connection:
        last_us = (await connection.execute(select(func.max(events.c.received_at_us)))).scalar_one()
    if last_us is None:
        return
    query = query.where(events.c.received_at_us <= last_us).limit(page)
    rows: list[KeptRow] = []
    while not rows or len(rows) == page:
        following = query.where(place > (rows[-1].received_at_us, rows[-1].event_id)) if rows else query
        async with store.reading() as connection:
            rows = [KeptRow(**members(row)) for row in await connection.execute(following)]
        if not rows:
            return
        yield rows


async def find_kept(store: Store, event_id: str) -> KeptRow | None:
    """Return an event as it is published again, None if it is not kept."""
    query = select(*_KEPT).where(events.c.event_id == storable(event_id))
    async with store.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else KeptRow(**members(row))


def event_of(row: Row[Any]) -> EventRow:
    """Return what a row with the columns `LISTED_EVENT` says, and the body if it is there."""
    values = members(row)
    received_at = iso8601(values.pop("received_at_us"))
    if "body" in values:
        values |= shown_body(values.pop("body"))
    return EventRow(received_at=received_at, **values)


SUMMARY = tuple(column for column in recordings.c if column is not recordings.c.videos)


def summary_of(row: Row[Any]) -> RecordingSummary:
    """Return what a row with the columns `SUMMARY` says."""
    return msgspec.convert(_values(row), RecordingSummary)


async def find_recordings(store: Store, task_id: str, *, app: int | None = None) -> list[Recording]:
    """Return the recordings of `task_id`, one per SdkAppId that has it (`app`: only that one), by SdkAppId."""
    query = select(recordings).where(recordings.c.task_id == task_id).order_by(recordings.c.sdk_app_id)
    if app is not None:
        query = query.where(recordings.c.sdk_app_id == app)
    async with store.reading() as connection:
        return await read_recordings(store.dialect, connection, (await connection.execute(query)).all())


async def read_recordings(dialect: Dialect, connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Recording]:
    """Return the recordings that `rows` of the table are, in their order, with all that other tables know of them."""
    keys = [(row.sdk_app_id, row.task_id) for row in rows]
    references: dict[RecordingKey, list[RecordingEventRef]] = {key: [] for key in keys}
    found_by: dict[RecordingKey, str] = {}
    archives: dict[RecordingKey, dict[str, VideoArchive]] = {key: {} for key in keys}
    for part in chunks(keys, MAX_VALUES):
        wanted = dialect.keys_parameters(part)
        for row in await connection.execute(_references_of(dialect), wanted):
            references[row.sdk_app_id, row.task_id].append(_reference(row))
        for row in await connection.execute(_found_by(dialect), wanted):
            found_by[row.sdk_app_id, row.task_id] = row.found_by
        for row in await connection.execute(_archives_of(dialect), wanted):
            archives[row.sdk_app_id, row.task_id][row.file_key] = _archive(row)
    read = []
    for key, row in zip(keys, rows, strict=True):
        findings = list_findings(references[key], found_by=found_by.get(key, ""))
        recording = msgspec.convert(_values(row) | {"events": references[key], "found": findings}, Recording)
        videos = (structs.replace(video, archive=archives[key].get(file_key(video))) for video in recording.videos)
        read.append(structs.replace(recording, videos=tuple(videos)) if archives[key] else recording)
    return read


@cache
def _references_of(dialect: Dialect) -> Select[Any]:
    query = _wanted_of(dialect, events, *LISTED_EVENT)
    return query.order_by(events.c.timestamp, events.c.routing_key, events.c.event_id)


@cache
def _found_by(dialect: Dialect) -> Select[Any]:
    columns = recording_questions.c
    return _wanted_of(dialect, recording_questions, columns.sdk_app_id, columns.task_id, columns.found_by)


@cache
def _archives_of(dialect: Dialect) -> Select[Any]:
    columns = archived_files.c
    shown = (columns.location, columns.sha256, columns.archived_at_us)
    return _wanted_of(
        dialect, archived_files, columns.sdk_app_id, columns.task_id, columns.file_key, file_state(), *shown
    )


def _wanted_of(dialect: Dialect, table: Table, *columns: ColumnElement[Any]) -> Select[Any]:
    """Select columns of the rows of a table that are of wanted recordings."""
    wanted = dialect.wanted_keys()
    is_wanted = and_(table.c.sdk_app_id == wanted.c.sdk_app_id, table.c.task_id == wanted.c.task_id)
    return select(*columns).select_from(wanted.join(table, is_wanted))


def file_state() -> Label[str]:
    """Return, as `file_state`, how far a file of the archive has come; see `VideoArchive`."""
    columns = archived_files.c
    return case(
        (columns.outcome.is_not(None), columns.outcome),
        (columns.is_staged, "staged"),
        (columns.leased_until_us > now_us(), "fetching"),
        else_="waiting",
    ).label("file_state")


def _archive(row: Row[Any]) -> VideoArchive:
    if row.file_state != "archived":
        return VideoArchive(state=row.file_state)
    archived_at = None if row.archived_at_us is None else iso8601(row.archived_at_us)
    return VideoArchive(state="archived", location=row.location, sha256=row.sha256, archived_at=archived_at)


class UnfinishedRecording(Struct, frozen=True, kw_only=True):
    """A recording of which no end is known. `active_at_us` is when the latest of its events that count was accepted."""

    sdk_app_id: int
    task_id: str
    room_id: int | None
    status: RecordingStatus
    estimate_stop_time: int | None
    active_at_us: int


async def list_unfinished(store: Store, *, since_us: int, until_us: int) -> list[UnfinishedRecording]:
    """Return the recordings of which no end is known, and of which nothing was heard but within these times.

    None of a test: nobody waits for its end.
    """
    columns = [recordings.c[name] for name in UnfinishedRecording.__struct_fields__]
    query = select(*columns).where(
        # Not as a parameter: a plan that is made for every value does not use the index of one.
        recordings.c.status != literal_column(f"'{RecordingStatus.FINISHED.value}'"),
        recordings.c.active_at_us >= since_us,
        recordings.c.active_at_us < until_us,
        ~is_test(recordings),
    )
    async with store.reading() as connection:
        return [msgspec.convert(members(row), UnfinishedRecording) for row in await connection.execute(query)]


async def list_contradicted(store: Store, *, since_us: int) -> list[EventRow]:
    """Return the events received since then that the vendor contradicts, the first accepted first."""
    query = (
        select(*LISTED_EVENT)
        # As the index has it.
        .where(literal_column("contradicted"), events.c.received_at_us >= since_us)
        .order_by(events.c.received_at_us, events.c.event_id)
    )
    async with store.reading() as connection:
        return [event_of(row) for row in await connection.execute(query)]


def _values(row: Row[Any]) -> dict[str, Any]:
    values = members(row)
    error = {"code": values.pop("error_code"), "message": values.pop("error_message")}
    return values | {"error": error if values.pop("failed") else None}


def _reference(row: Row[Any]) -> RecordingEventRef:
    return RecordingEventRef(
        event_id=row.event_id,
        event_type=row.event_type,
        timestamp=row.timestamp,
        received_at=iso8601(row.received_at_us),
        source=row.source,
        verified=row.verified,
    )


async def find_events(store: Store, sdk_app_id: int, task_id: str, *, event_type: str) -> list[KeptRow]:
    """Return the kept events of one type of a recording, the first accepted first."""
    query = (
        select(*_KEPT)
        .where(events.c.sdk_app_id == sdk_app_id, events.c.task_id == task_id, events.c.routing_key == event_type)
        .order_by(events.c.received_at_us, events.c.event_id)
    )
    async with store.reading() as connection:
        return [KeptRow(**members(row)) for row in await connection.execute(query)]
