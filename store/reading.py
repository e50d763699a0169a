"""Kept events and recordings, as people ask for them."""

from collections.abc import AsyncIterator, Collection
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Row, bindparam, func, literal_column, select, tuple_

from schemas import UNRECOGNIZED, RecordingStatus
from store.recording import Recording, RecordingEventRef, RecordingSummary, list_findings
from store.store import Store, members
from store.tables import events, iso8601, recording_questions, recordings, shown_body


class EventRow(Struct, frozen=True, kw_only=True):
    """An event in a listing: `timestamp` in Unix seconds, `received_at` (first acceptance) as ISO 8601 text.

    `event_type` and `timestamp` are None where an unrecognized callback has no usable ones, `task_id` where the
    event belongs to no recording. `source` is empty for a callback, `reconcile` for what the vendor answered when it
    was asked; `verified` says whether the vendor confirms the event, None until it was asked. The body is there only if
    it was asked for.
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


_LISTED = (
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


async def list_events(
    store: Store,
    *,
    app: int | None = None,
    since_us: int | None = None,
    unrecognized: bool = False,
    bodies: bool = False,
    limit: int = 1000,
) -> list[EventRow]:
    """Return events, the latest accepted first, at most `limit` (0: all); only the unrecognized, if asked."""
    query = select(*_LISTED).order_by(events.c.received_at_us.desc(), events.c.event_id.desc())
    if bodies:
        query = query.add_columns(events.c.body)
    if app is not None:
        query = query.where(events.c.sdk_app_id == app)
    if since_us is not None:
        query = query.where(events.c.received_at_us >= since_us)
    if unrecognized:
        query = query.where(events.c.routing_key == UNRECOGNIZED)
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        return [_listed(row) for row in await connection.execute(query)]


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
        query = query.where(events.c.task_id == task_id)
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


def _listed(row: Row[Any]) -> EventRow:
    values = members(row)
    received_at = iso8601(values.pop("received_at_us"))
    if "body" in values:
        values |= shown_body(values.pop("body"))
    return EventRow(received_at=received_at, **values)


_SUMMARY = tuple(column for column in recordings.c if column is not recordings.c.videos)


async def list_recordings(
    store: Store,
    *,
    app: int | None = None,
    status: RecordingStatus | None = None,
    failed: bool = False,
    since_us: int | None = None,
    limit: int = 1000,
) -> list[RecordingSummary]:
    """Return recordings, the one with the latest activity first, at most `limit` (0: all); `failed`: with an error.

    Activity is the acceptance of an event that counts: the winner of its type. `since_us` is compared with the
    latest; `app` is a SdkAppId.
    """
    query = select(*_SUMMARY).order_by(recordings.c.active_at_us.desc(), recordings.c.sdk_app_id, recordings.c.task_id)
    if app is not None:
        query = query.where(recordings.c.sdk_app_id == app)
    if status is not None:
        query = query.where(recordings.c.status == status.value)
    if failed:
        query = query.where(recordings.c.failed)
    if since_us is not None:
        query = query.where(recordings.c.active_at_us >= since_us)
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        return [msgspec.convert(_values(row), RecordingSummary) for row in await connection.execute(query)]


async def find_recordings(store: Store, task_id: str, *, app: int | None = None) -> list[Recording]:
    """Return the recordings of `task_id`, one per SdkAppId that has it (`app`: only that one), by SdkAppId."""
    query = select(recordings).where(recordings.c.task_id == task_id).order_by(recordings.c.sdk_app_id)
    references = (
        select(*_LISTED)
        .where(events.c.sdk_app_id.in_(bindparam("apps", expanding=True)), events.c.task_id == task_id)
        .order_by(events.c.timestamp, events.c.routing_key, events.c.event_id)
    )
    if app is not None:
        query = query.where(recordings.c.sdk_app_id == app)
    questions = select(recording_questions.c.sdk_app_id, recording_questions.c.found_by).where(
        recording_questions.c.task_id == task_id
    )
    async with store.reading() as connection:
        rows = (await connection.execute(query)).all()
        by_app: dict[int, list[RecordingEventRef]] = {row.sdk_app_id: [] for row in rows}
        for row in await connection.execute(references, {"apps": [*by_app]}):
            by_app[row.sdk_app_id].append(_reference(row))
        found_by = {row.sdk_app_id: row.found_by for row in await connection.execute(questions)}
    return [
        msgspec.convert(
            _values(row)
            | {
                "events": by_app[row.sdk_app_id],
                "found": list_findings(by_app[row.sdk_app_id], found_by=found_by.get(row.sdk_app_id, "")),
            },
            Recording,
        )
        for row in rows
    ]


class UnfinishedRecording(Struct, frozen=True, kw_only=True):
    """A recording of which no end is known. `active_at_us` is when the latest of its events that count was accepted."""

    sdk_app_id: int
    task_id: str
    room_id: int | None
    status: RecordingStatus
    estimate_stop_time: int | None
    active_at_us: int


async def list_unfinished(store: Store, *, since_us: int, until_us: int) -> list[UnfinishedRecording]:
    """Return the recordings of which no end is known, and of which nothing was heard but within these times."""
    columns = [recordings.c[name] for name in UnfinishedRecording.__struct_fields__]
    query = select(*columns).where(
        # Not as a parameter: a plan that is made for every value does not use the index of one.
        recordings.c.status != literal_column(f"'{RecordingStatus.FINISHED.value}'"),
        recordings.c.active_at_us >= since_us,
        recordings.c.active_at_us < until_us,
    )
    async with store.reading() as connection:
        return [msgspec.convert(members(row), UnfinishedRecording) for row in await connection.execute(query)]


async def list_contradicted(store: Store, *, since_us: int) -> list[EventRow]:
    """Return the events received since then that the vendor contradicts, the first accepted first."""
    query = (
        select(*_LISTED)
        # As the index has it.
        .where(literal_column("contradicted"), events.c.received_at_us >= since_us)
        .order_by(events.c.received_at_us, events.c.event_id)
    )
    async with store.reading() as connection:
        return [_listed(row) for row in await connection.execute(query)]


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
