"""Events that a consumer gave up on: kept until somebody replays or purges them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import ColumnElement, CursorResult, Row, bindparam, delete, func, select, tuple_, update

from store.recording import TEST_SOURCE
from store.store import Store, members, now_us
from store.tables import dead_letters, events, iso8601, shown_body, storable


class DeadLetter(Struct, frozen=True, kw_only=True):
    """An event that a consumer gave up on, with all that is needed to give it to the consumer again.

    Times are microseconds since the Unix epoch; `attempts` counts outcomes; `trace` is a W3C traceparent or empty;
    `source` is that of the event, see `KeptEvent`. `traceback` is that of the last failure, empty where there was no
    exception.
    """

    consumer: str
    event_id: str
    event_type: str | None
    sdk_app_id: int
    attempts: int
    reason: str
    first_failed_at_us: int
    last_failed_at_us: int
    body: bytes
    routing_key: str
    received_at_us: int
    trace: str = ""
    source: str = ""
    traceback: str = ""


class DeadLetterRow(Struct, frozen=True, kw_only=True):
    """A dead letter in a listing; times are ISO 8601 text. The body is there only if it was asked for.

    `task_id` is None where the event belongs to no recording, or is no longer kept; `traceback` is that of the last
    failure, empty where there was no exception.
    """

    consumer: str
    event_id: str
    event_type: str | None
    sdk_app_id: int
    task_id: str | None
    attempts: int
    reason: str
    traceback: str
    first_failed_at: str
    last_failed_at: str
    body: str | UnsetType = UNSET
    body_base64: str | UnsetType = UNSET


_LETTER = tuple(dead_letters.c[name] for name in DeadLetter.__struct_fields__)
LISTED_LETTER = (
    dead_letters.c.consumer,
    dead_letters.c.event_id,
    dead_letters.c.event_type,
    dead_letters.c.sdk_app_id,
    events.c.task_id,
    dead_letters.c.attempts,
    dead_letters.c.reason,
    dead_letters.c.traceback,
    dead_letters.c.first_failed_at_us,
    dead_letters.c.last_failed_at_us,
)


async def keep_dead_letters(store: Store, letters: Sequence[DeadLetter]) -> None:
    """Keep dead letters, durable on return; idempotent.

    One row per consumer and event: the letter that failed last counts, and needs attention again even if an
    earlier one was replayed. The same letter arriving twice changes nothing.
    """
    insert = store.dialect.insert(dead_letters)
    upsert = insert.on_conflict_do_update(
        index_elements=[dead_letters.c.consumer, dead_letters.c.event_id],
        set_={column.name: insert.excluded[column.name] for column in dead_letters.c if not column.primary_key},
        where=insert.excluded.last_failed_at_us > dead_letters.c.last_failed_at_us,
    )
    rows = [_row(letter) for letter in sorted(letters, key=lambda one: (one.consumer, one.event_id))]
    if rows:
        await store.write(lambda connection: connection.execute(upsert, rows))


async def list_dead_letters(
    store: Store,
    *,
    consumer: str | None = None,
    event_id: str | None = None,
    since_us: int | None = None,
    app: int | None = None,
    reason_start: str | None = None,
    resolved: bool = False,
    tests: bool = True,
    bodies: bool = False,
    limit: int = 1000,
) -> list[DeadLetterRow]:
    """Return the dead letters that were not replayed, the last failed first, at most `limit` (0: all).

    `resolved`: those that were replayed instead. `tests`: also those of what somebody sent to try the consumers.
    """
    query = (
        select(*LISTED_LETTER)
        .select_from(dead_letters.outerjoin(events, events.c.event_id == dead_letters.c.event_id))
        .where(*_selected(consumer, event_id, since_us, app, reason_start=reason_start, resolved=resolved))
        .order_by(dead_letters.c.last_failed_at_us.desc(), dead_letters.c.consumer, dead_letters.c.event_id)
    )
    if not tests:
        query = query.where(dead_letters.c.source != TEST_SOURCE)
    if bodies:
        query = query.add_columns(dead_letters.c.body)
    if limit:
        query = query.limit(limit)
    async with store.reading() as connection:
        return [letter_of(row) for row in await connection.execute(query)]


async def count_dead_letters(
    store: Store,
    *,
    consumer: str | None = None,
    event_id: str | None = None,
    reason_start: str | None = None,
    until_us: int | None = None,
) -> dict[str, int]:
    """Return how many dead letters were not replayed, by consumer; consumers without any are absent."""
    query = (
        select(dead_letters.c.consumer, func.count().label("dead"))
        .where(*_selected(consumer, event_id, reason_start=reason_start, until_us=until_us))
        .group_by(dead_letters.c.consumer)
        .order_by(dead_letters.c.consumer)
    )
    async with store.reading() as connection:
        return {row.consumer: row.dead for row in await connection.execute(query)}


async def pages_of_dead_letters(
    store: Store,
    *,
    consumer: str | None = None,
    event_id: str | None = None,
    since_us: int | None = None,
    app: int | None = None,
    reason_start: str | None = None,
    until_us: int | None = None,
    page: int = 100,
) -> AsyncIterator[list[DeadLetter]]:
    """Yield the dead letters that were not replayed, whole, in pages, by consumer and event_id.

    They may be replayed or purged between two pages; no transaction is open then.
    """
    query = (
        select(*_LETTER)
        .where(*_selected(consumer, event_id, since_us, app, reason_start=reason_start, until_us=until_us))
        .order_by(dead_letters.c.consumer, dead_letters.c.event_id)
        .limit(page)
    )
    place = tuple_(dead_letters.c.consumer, dead_letters.c.event_id)
    letters: list[DeadLetter] = []
    while not letters or len(letters) == page:
        following = query.where(place > (letters[-1].consumer, letters[-1].event_id)) if letters else query
        async with store.reading() as connection:
            letters = [DeadLetter(**members(row)) for row in await connection.execute(following)]
        if not letters:
            return
        yield letters


async def mark_replayed(store: Store, letters: Sequence[DeadLetter]) -> None:
    """Remember that these letters were given to their consumers again; one that failed anew meanwhile stays."""
    statement = (
        update(dead_letters)
        .where(
            dead_letters.c.consumer == bindparam("of_consumer"),
            dead_letters.c.event_id == bindparam("of_event_id"),
            dead_letters.c.last_failed_at_us == bindparam("as_of_us"),
        )
        .values(resolved_at_us=now_us())
    )
    rows = [
        {"of_consumer": one.consumer, "of_event_id": one.event_id, "as_of_us": one.last_failed_at_us}
        for one in sorted(letters, key=lambda one: (one.consumer, one.event_id))
    ]
    if rows:
        await store.write(lambda connection: connection.execute(statement, rows))


async def purge_dead_letters(
    store: Store,
    *,
    consumer: str | None = None,
    event_id: str | None = None,
    since_us: int | None = None,
    app: int | None = None,
    reason_start: str | None = None,
    until_us: int | None = None,
) -> int:
    """Delete for good the dead letters that `pages_of_dead_letters` would yield; return how many."""
    statement = delete(dead_letters).where(
        *_selected(consumer, event_id, since_us, app, reason_start=reason_start, until_us=until_us)
    )
    result: CursorResult[Any] = await store.write(lambda connection: connection.execute(statement))
    return result.rowcount


def _selected(
    consumer: str | None,
    event_id: str | None,
    since_us: int | None = None,
    app: int | None = None,
    *,
    reason_start: str | None = None,
    until_us: int | None = None,
    resolved: bool = False,
) -> list[ColumnElement[bool]]:
    is_open = dead_letters.c.resolved_at_us.is_(None)
    conditions: list[ColumnElement[bool]] = [~is_open if resolved else is_open]
    if consumer is not None:
        conditions.append(dead_letters.c.consumer == storable(consumer))
    if event_id is not None:
        conditions.append(dead_letters.c.event_id == storable(event_id))
    if since_us is not None:
        conditions.append(dead_letters.c.last_failed_at_us >= since_us)
    if app is not None:
        conditions.append(dead_letters.c.sdk_app_id == app)
    if until_us is not None:
        conditions.append(dead_letters.c.last_failed_at_us <= until_us)
    if reason_start is not None:
        conditions += has_reason(reason_start)
    return conditions


#: Characters of a reason by which letters are grouped, at most; the reason's first line.
REASON_START: Final = 200


def has_reason(start: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a letter has this reason: as its first line, or as the start of a longer one."""
    start = storable(start)
    conditions = [func.substr(dead_letters.c.reason, 1, len(start)) == start]
    if len(start) < REASON_START:
        conditions.append(func.substr(dead_letters.c.reason, len(start) + 1, 1).in_(("", "\n")))
    return conditions


def _row(letter: DeadLetter) -> dict[str, Any]:
    values = structs.asdict(letter)
    texts = {name: storable(value) for name, value in values.items() if isinstance(value, str)}
    return values | texts | {"resolved_at_us": None}


def letter_of(row: Row[Any]) -> DeadLetterRow:
    """Return what a row with the columns `LISTED_LETTER` says, and the body if it is there."""
    values = members(row)
    first_failed_at = iso8601(values.pop("first_failed_at_us"))
    last_failed_at = iso8601(values.pop("last_failed_at_us"))
    if "body" in values:
        values |= shown_body(values.pop("body"))
    return DeadLetterRow(first_failed_at=first_failed_at, last_failed_at=last_failed_at, **values)
