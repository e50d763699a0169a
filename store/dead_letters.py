"""Events that a consumer gave up on: kept until somebody replays or purges them."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType, structs
from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

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
    replaced = [column.name for column in dead_letters.c if not column.primary_key and column.name != "replay_at_us"]
    upsert = insert.on_conflict_do_update(
        index_elements=[dead_letters.c.consumer, dead_letters.c.event_id],
        set_={name: insert.excluded[name] for name in replaced},
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
    reason: str | None = None,
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
        .where(*_selected(consumer, event_id, since_us, app, reason=reason, resolved=resolved))
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
    reason: str | None = None,
    until_us: int | None = None,
) -> dict[str, int]:
    """Return how many dead letters were not replayed, by consumer; consumers without any are absent."""
    # In the order of the key SQLite would look up each row; the index by time has all that is counted.
    name = store.dialect.unindexed(dead_letters.c.consumer)
    query = (
        select(dead_letters.c.consumer, func.count().label("dead"))
        .where(*_selected(consumer, event_id, reason=reason, until_us=until_us))
        .group_by(name)
        .order_by(name)
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
    reason: str | None = None,
    until_us: int | None = None,
    page: int = 100,
) -> AsyncIterator[list[DeadLetter]]:
    """Yield the dead letters that were not replayed, whole, in pages, by consumer and event_id.

    They may be replayed or purged between two pages; no transaction is open then.
    """
    query = (
        select(*_LETTER)
        .where(*_selected(consumer, event_id, since_us, app, reason=reason, until_us=until_us))
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


async def mark_replayed(store: Store, letters: Sequence[DeadLetter], *, replay_at_us: int | None = None) -> None:
    """Remember that these letters were given to their consumers again; one that failed anew meanwhile stays.

    `replay_at_us` names the replay: what became of its letters is counted by it.
    """
    is_as_it_was = dead_letters.c.last_failed_at_us == bindparam("as_of_us")
    statement = (
        update(dead_letters)
        .where(
            dead_letters.c.consumer == bindparam("of_consumer"),
            dead_letters.c.event_id == bindparam("of_event_id"),
        )
        .values(
            resolved_at_us=case((is_as_it_was, now_us()), else_=dead_letters.c.resolved_at_us),
            replay_at_us=replay_at_us,
        )
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
    reason: str | None = None,
    until_us: int | None = None,
) -> int:
    """Delete for good the dead letters that `pages_of_dead_letters` would yield; return how many."""
    statement = delete(dead_letters).where(
        *_selected(consumer, event_id, since_us, app, reason=reason, until_us=until_us)
    )
    result: CursorResult[Any] = await store.write(lambda connection: connection.execute(statement))
    return result.rowcount


def _selected(
    consumer: str | None,
    event_id: str | None,
    since_us: int | None = None,
    app: int | None = None,
    *,
    reason: str | None = None,
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
    if reason is not None:
        conditions += has_reason(reason)
    return conditions


#: Characters of a reason by which letters are grouped, at most; the reason's first line.
REASON_START: Final = 200

#: What stands in a pattern for what changes from letter to letter.
_CHANGING: Final = "\N{HORIZONTAL ELLIPSIS}"

#: What is quoted, an apostrophe left out, and words. Only ASCII makes words: between Chinese ones there are no spaces,
#: and a number would take its whole sentence along.
_PARTS: Final = re.compile(
    rf"""(?<![\w{_CHANGING}])(?P<quote>['"`]).*?(?P=quote)(?![\w{_CHANGING}])|“.*?”|-*\w+(?:[.-]+\w+)*-*""", re.ASCII
)

#: Numbers that say what went wrong: a status, an errno. One with a unit was measured.
_TELLING: Final = re.compile(r"\d{1,3}(?! ?(?:ms|s|seconds|bytes)\b)", re.ASCII)


def first_line_of(reason: str) -> str:
    """Return what letters without a pattern are grouped by: the first line, `REASON_START` characters of it."""
    return reason.partition("\n")[0][:REASON_START]


def pattern_of(reason: str) -> str:
    """Return what letters that failed for the same reason have in common: its first line, without what changes.

    That is what is quoted, and what has a digit in it: ids, times, addresses, long numbers. Letters are kept with it:
    where it becomes another, a migration has to give it to those that are there. The pattern of a pattern is itself.
    """
    pattern = first_line_of(reason)
    while (following := _PARTS.sub(_in_common, pattern)) != pattern:
        pattern = following
    return pattern


def _in_common(found: re.Match[str]) -> str:
    part = found[0]
    if found["quote"] or part[0] == "“":
        return f"{part[0]}{_CHANGING}{part[-1]}"
    is_error = found.start() == 0 and part.endswith(("Error", "Exception"))
    telling = _TELLING.match(found.string, found.start())
    stays = is_error or (telling is not None and telling.end() == found.end()) or not any("0" <= c <= "9" for c in part)
    return part if stays else _CHANGING


def has_reason(reason: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a letter has this reason: as its first line, or as the start of a longer one.

    A pattern is the reason of all the letters that have it, and of no others.
    """
    reason = storable(reason)
    is_start = [func.substr(dead_letters.c.reason, 1, len(reason)) == reason]
    if len(reason) < REASON_START:
        is_start.append(func.substr(dead_letters.c.reason, len(reason) + 1, 1).in_(("", "\n")))
    if not reason or pattern_of(reason) != reason:
        return is_start
    has_pattern = dead_letters.c.reason_pattern == reason
    return [or_(has_pattern, and_(dead_letters.c.reason_pattern == "", *is_start))]


def _row(letter: DeadLetter) -> dict[str, Any]:
    values = structs.asdict(letter)
    texts = {name: storable(value) for name, value in values.items() if isinstance(value, str)}
    return values | texts | {"resolved_at_us": None, "reason_pattern": pattern_of(texts["reason"])}


def letter_of(row: Row[Any]) -> DeadLetterRow:
    """Return what a row with the columns `LISTED_LETTER` says, and the body if it is there."""
    values = members(row)
    first_failed_at = iso8601(values.pop("first_failed_at_us"))
    last_failed_at = iso8601(values.pop("last_failed_at_us"))
    if "body" in values:
        values |= shown_body(values.pop("body"))
    return DeadLetterRow(first_failed_at=first_failed_at, last_failed_at=last_failed_at, **values)
