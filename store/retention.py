"""Forgetting what is old, in small transactions that nobody waits long for.

A recording stays, and of its events those that it is made of: at most one of each type. Whatever comes late is merged
with them, and the recording is right whenever that is. Everything else goes: what a later or better event of the same
type has superseded for as long, and what belongs to no recording.

Any number of processes may do this at once: on PostgreSQL one of them does it and the others do not wait for it.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Row,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from schemas import EVENT_TYPES, RECORDING_ARCHIVED, UNRECOGNIZED
from store.changes import forget_in_changes
from store.connection import AsyncConnection
from store.statements import Dialect, RecordingKey
from store.store import MAX_VALUES, Store, chunks, now_us
from store.tables import (
    archived_files,
    archived_recordings,
    completions,
    dead_letters,
    events,
    notices,
    recording_questions,
    recordings,
)

#: Rows that one transaction looks at, and at most deletes.
AT_ONCE: Final = 1000

#: Any number that nobody else takes: "tiwprune" in ASCII.
ADVISORY_LOCK: Final = int.from_bytes(b"tiwprune", "big")

_LETTER = tuple_(dead_letters.c.consumer, dead_letters.c.event_id)


#: An event's place in the order of age: when it was accepted, and its id.
Place: TypeAlias = tuple[int, str]

BEFORE_ALL: Final[Place] = (-1, "")


class PrunedEvents(Struct, frozen=True):
    """What one transaction did: how many it deleted, and the last event that it looked at."""

    deleted: int
    place: Place


async def prune_events(
    store: Store, *, older_than_s: float, after: Place = BEFORE_ALL, at_once: int = AT_ONCE
) -> AsyncIterator[PrunedEvents]:
    """Delete the events that were accepted longer ago than this and that no recording is made of.

    Begins behind `after`, and yields once per transaction; between two of them nothing is locked. Ends early if another
    process is at it. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    looked_at = at_once
    while looked_at == at_once:
        place = after

        async def operation(connection: AsyncConnection, place: Place = place) -> tuple[int, PrunedEvents]:
            return await _prune_page(store.dialect, connection, place, older_than_s, at_once)

        looked_at, pruned = await store.write(operation)
        if looked_at:
            yield pruned
        after = pruned.place


async def prune_dead_letters(store: Store, *, older_than_s: float, at_once: int = AT_ONCE) -> int:
    """Delete dead letters that were replayed longer ago than this, and return how many; others stay for ever."""
    old = select(dead_letters.c.consumer, dead_letters.c.event_id).where(
        dead_letters.c.resolved_at_us < now_us() - round(older_than_s * 1_000_000)
    )
    statement = delete(dead_letters).where(_LETTER.in_(old.limit(at_once)))
    pruned = 0
    while True:
        count = (await store.write(lambda connection: connection.execute(statement))).rowcount
        pruned += count
        if count < at_once:
            return pruned


async def _prune_page(
    dialect: Dialect, connection: AsyncConnection, place: Place, older_than_s: float, at_once: int
) -> tuple[int, PrunedEvents]:
    """Return how many events were looked at, and what became of them."""
    if not await dialect.try_lock(connection, ADVISORY_LOCK):
        return 0, PrunedEvents(0, place)
    of_event = tuple_(events.c.received_at_us, events.c.event_id)
    before_us = now_us() - round(older_than_s * 1_000_000)
    page = (
        select(events.c.received_at_us, events.c.event_id, _is_spare(before_us).label("is_spare"))
        .where(events.c.received_at_us < before_us, of_event > place)
        .order_by(events.c.received_at_us, events.c.event_id)
        .limit(at_once)
    )
    rows = (await connection.execute(page)).all()
    spare = sorted(row.event_id for row in rows if row.is_spare)
    if spare:
        await connection.execute(delete(events).where(events.c.event_id.in_(spare)))
    last = (rows[-1].received_at_us, rows[-1].event_id) if rows else place
    return len(rows), PrunedEvents(len(spare), last)


def _is_spare(before_us: ColumnElement[int]) -> ColumnElement[bool]:
    """Say whether no recording is made of an event, nor was since `before_us`.

    What superseded it only since then may yet be found to be forged: then the recording is made of this one again.
    """
    better = events.alias("better")
    outranks = tuple_(better.c.outranks, better.c.timestamp, better.c.event_id) > tuple_(
        events.c.outranks, events.c.timestamp, events.c.event_id
    )
    superseded = exists().where(
        and_(
            better.c.sdk_app_id == events.c.sdk_app_id,
            better.c.task_id == events.c.task_id,
            better.c.routing_key == events.c.routing_key,
            better.c.received_at_us < before_us,
            or_(
                and_(~better.c.contradicted, events.c.contradicted),
                and_(better.c.contradicted == events.c.contradicted, outranks),
            ),
        )
    )
    return or_(events.c.task_id.is_(None), superseded)


#: For one statement: what nobody recognized has no index by TaskId, and there may be much of it.
SEARCH_TIMEOUT_S: Final = 600.0


class Forgotten(Struct, frozen=True, kw_only=True):
    """How much was known of a recording. `unresolved_dead_letters` are some of `dead_letters`.

    `questions` are what the vendor was or is to be asked of it, `notices` what was or is to be told of it, and
    `archived_files` what is known of its files in the archive, where they stay.
    """

    sdk_app_id: int
    task_id: str
    recordings: int = 0
    events: int = 0
    dead_letters: int = 0
    unresolved_dead_letters: int = 0
    completions: int = 0
    leases: int = 0
    questions: int = 0
    notices: int = 0
    archived_files: int = 0


class _EventData(Struct):
    """As much of EventData as says what it belongs to."""

    TaskId: str = ""


class _Body(Struct):
    """As much of a callback as says what it belongs to."""

    EventType: str = ""
    EventData: _EventData = msgspec.field(default_factory=_EventData)


class Traces(Struct, frozen=True, kw_only=True):
    """What is known of one TaskId of one SdkAppId besides the events of its recording.

    `event_ids` are of events that nobody recognized, `letter_ids` of dead letters' events.
    """

    sdk_app_id: int
    event_ids: frozenset[str] = frozenset()
    letter_ids: frozenset[str] = frozenset()


async def find_traces(store: Store, task_id: str) -> list[Traces]:
    """Return what is known of a TaskId, by SdkAppId in order; an empty list if nothing is.

    Events that nobody recognized belong to it if they say that they are of a recording and name the TaskId.
    Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    async with (
        Store(store.url, statement_timeout_s=SEARCH_TIMEOUT_S) as patient,
        patient.reading() as connection,
    ):
        apps: set[int] = set()
        # Events, too: one of ours may be there alone, as it makes no recording.
        for table in (*_WITH_KEYS, events):
            named = select(table.c.sdk_app_id).where(table.c.task_id == task_id, table.c.sdk_app_id.is_not(None))
            apps.update((await connection.execute(named)).scalars())
        found_events = await _naming(store.dialect, connection, events, task_id, events.c.routing_key == UNRECOGNIZED)
        found_letters = await _naming(store.dialect, connection, dead_letters, task_id)
    apps |= {row.sdk_app_id for row in (*found_events, *found_letters)}
    return [
        Traces(
            sdk_app_id=app,
            event_ids=frozenset(row.event_id for row in found_events if row.sdk_app_id == app),
            letter_ids=frozenset(row.event_id for row in found_letters if row.sdk_app_id == app),
        )
        for app in sorted(apps)
    ]


async def forget_recording(store: Store, task_id: str, traces: Traces, *, dry_run: bool = False) -> Forgotten:
    """Delete a recording, its events and `traces`, unresolved dead letters too, and what consumers remember of them.

    So are questions and notices about it, and the rows of its archive, but no file; changes that somebody made to it
    stay, without its name. In one transaction; returns how
    much it was, or with `dry_run` how much it would be. What arrives later makes the recording anew. Raises
    `StoreUnavailableError` and `SchemaMismatchError`.
    """
    key: RecordingKey = (traces.sdk_app_id, task_id)

    async def operation(connection: AsyncConnection) -> Forgotten:
        # First, as everybody does: nobody waits in a circle, and no event of it comes in between.
        await store.dialect.lock_recordings(connection, [key])
        counts = {table.name: await _count(connection, table, key) for table in _WITH_KEYS}
        of_recording = (await connection.execute(select(events.c.event_id).where(_is_of(events, key)))).scalars()
        event_ids = {*of_recording, *(row.event_id for row in await _rows(connection, events, traces.event_ids))}
        letters = await _rows(connection, dead_letters, traces.letter_ids)
        remembered = await _rows(connection, completions, event_ids | traces.letter_ids)
        if not dry_run:
            await _delete(connection, completions, event_ids | traces.letter_ids)
            await _delete(connection, dead_letters, traces.letter_ids)
            await _delete(connection, events, event_ids)
            for table in _WITH_KEYS:
                await connection.execute(delete(table).where(_is_of(table, key)))
            await forget_in_changes(connection, *key)
        return Forgotten(
            sdk_app_id=traces.sdk_app_id,
            task_id=task_id,
            recordings=counts[recordings.name],
            events=len(event_ids),
            dead_letters=len(letters),
            unresolved_dead_letters=sum(row.resolved_at_us is None for row in letters),
            completions=sum(row.completed_at_us is not None for row in remembered),
            leases=sum(row.completed_at_us is None for row in remembered),
            questions=counts[recording_questions.name],
            notices=counts[notices.name],
            archived_files=counts[archived_files.name],
        )

    return await store.write(operation)


#: Tables whose rows name the recording that they are of, events left out; in the order in which they are locked.
_WITH_KEYS: Final = (recordings, recording_questions, notices, archived_recordings, archived_files)


def _is_of(table: Table, key: RecordingKey) -> ColumnElement[bool]:
    return and_(table.c.sdk_app_id == key[0], table.c.task_id == key[1])


async def _count(connection: AsyncConnection, table: Table, key: RecordingKey) -> int:
    query = select(func.count()).select_from(table).where(_is_of(table, key))
    return (await connection.execute(query)).scalar_one()


async def _naming(
    dialect: Dialect, connection: AsyncConnection, table: Table, task_id: str, *conditions: ColumnElement[bool]
) -> list[Row[Any]]:
    """Return event_id, sdk_app_id and body of the rows whose body names the TaskId."""
    query = select(table.c.event_id, table.c.sdk_app_id, table.c.body).where(
        *conditions,
        # As it stands, or written with escapes; read below.
        or_(_holds(dialect, table.c.body, task_id.encode()), _holds(dialect, table.c.body, b"\\")),
    )
    return [row for row in await connection.execute(query) if _names(row.body, task_id)]


def _holds(dialect: Dialect, body: ColumnElement[bytes], part: bytes) -> ColumnElement[bool]:
    return dialect.holds(body, literal(part, LargeBinary))


def _names(body: bytes, task_id: str) -> bool:
    try:
        said = msgspec.json.decode(body, type=_Body)
    except (ValueError, RecursionError):
        return False
    return said.EventType in (*EVENT_TYPES, RECORDING_ARCHIVED) and said.EventData.TaskId == task_id


async def _rows(connection: AsyncConnection, table: Table, event_ids: Collection[str]) -> Sequence[Row[Any]]:
    found: list[Row[Any]] = []
    for part in chunks(sorted(event_ids), MAX_VALUES):
        found += (await connection.execute(select(table).where(table.c.event_id.in_(part)))).all()
    return found


async def _delete(connection: AsyncConnection, table: Table, event_ids: Iterable[str]) -> None:
    for part in chunks(sorted(event_ids), MAX_VALUES):
        await connection.execute(delete(table).where(table.c.event_id.in_(part)))
