"""Recordings as people ask for them."""

from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, select

from store.connecting import Store
from store.instants import iso8601
from store.recording import Recording, RecordingEventRef, RecordingStatus, RecordingSummary
from store.sql import members
from store.tables import events, recordings

_SUMMARY = tuple(column for column in recordings.c if column is not recordings.c.videos)


async def list_recordings(
    store: Store,
    *,
    app: int | None = None,
    status: RecordingStatus | None = None,
    since_us: int | None = None,
    limit: int = 1000,
) -> list[RecordingSummary]:
    """Return recordings, the one with the latest activity first, at most `limit` (0: all).

    Activity is the acceptance of an event that counts: the winner of its type. `since_us` is compared with the
    latest; `app` is a SdkAppId.
    """
    query = select(*_SUMMARY).order_by(recordings.c.active_at_us.desc(), recordings.c.sdk_app_id, recordings.c.task_id)
    if app is not None:
        query = query.where(recordings.c.sdk_app_id == app)
    if status is not None:
        query = query.where(recordings.c.status == status.value)
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
        select(events.c.sdk_app_id, events.c.event_id, events.c.event_type, events.c.timestamp, events.c.received_at_us)
        .where(events.c.sdk_app_id.in_(bindparam("apps", expanding=True)), events.c.task_id == task_id)
        .order_by(events.c.timestamp, events.c.routing_key, events.c.event_id)
    )
    if app is not None:
        query = query.where(recordings.c.sdk_app_id == app)
    async with store.reading() as connection:
        rows = (await connection.execute(query)).all()
        by_app: dict[int, list[RecordingEventRef]] = {row.sdk_app_id: [] for row in rows}
        for row in await connection.execute(references, {"apps": [*by_app]}):
            by_app[row.sdk_app_id].append(_reference(row))
    return [msgspec.convert(_values(row) | {"events": by_app[row.sdk_app_id]}, Recording) for row in rows]


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
    )
