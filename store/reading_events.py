"""Kept events: to look at, to count, and to publish again."""

from collections.abc import AsyncIterator, Collection
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Row, func, select, tuple_

from schemas import UNRECOGNIZED
from store.bodies import shown_body
from store.connecting import Store
from store.instants import iso8601
from store.sql import members
from store.tables import events


class EventRow(Struct, frozen=True, kw_only=True):
    """An event in a listing: `timestamp` in Unix seconds, `received_at` (first acceptance) as ISO 8601 text.

    `event_type` and `timestamp` are None where an unrecognized callback has no usable ones, `task_id` where the
    event belongs to no recording. The body is there only if it was asked for.
    """

    event_id: str
    event_type: str | None
    sdk_app_id: int
    task_id: str | None
    timestamp: int | None
    received_at: str
    body: str | UnsetType = UNSET
    body_base64: str | UnsetType = UNSET


class KeptRow(Struct, frozen=True, kw_only=True):
    """A kept event as it is published again."""

    event_id: str
    routing_key: str
    received_at_us: int
    body: bytes


_LISTED = (
    events.c.event_id,
    events.c.event_type,
    events.c.sdk_app_id,
    events.c.task_id,
    events.c.timestamp,
    events.c.received_at_us,
)
_KEPT = (events.c.event_id, events.c.routing_key, events.c.received_at_us, events.c.body)


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
