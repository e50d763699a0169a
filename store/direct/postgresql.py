"""Events into PostgreSQL by asyncpg itself: one statement for new recordings, two for those that are known.

    read    the version of recordings, and their events
    write   inserts new recordings, brings known ones to what they are now, and inserts the events of both: in one
            statement, so that a recording has all of that or nothing

A recording is changed only if it still has the version that was read: whoever changes what counts of its events changes
its row in the same transaction. What was not written, and what is not plain, goes the careful way. So nothing is ever
left that a repetition would not mend: the careful way folds all events that are there, whoever inserted them.

Locks are taken as the careful way does: new recordings in the order of their keys, known ones in theirs, then events in
the order of their ids.

Other statements that are transactions of their own go the same way: `PostgresDirect.fetch`.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
import msgspec
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import JSON, ClauseElement, Table, Text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.sql.compiler import SQLCompiler

from schemas import EVENT_TYPES, RECORDING_ARCHIVED, OnlineRecordStarted, redecode
from store.connection import AsyncConnection, AsyncEngine
from store.kept import KeptEvent, event_row, recording_key, recording_row
from store.recording import makes_recording, merge_verified
from store.statements import RecordingKey
from store.tables import events, recordings

#: Whoever has more events than this is merged the careful way, which reads only those that count.
MOST_EVENTS: Final = 16

_DIALECT: Final = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # the library gives it no types

Result = TypeVar("Result")

#: Events of recordings, by these.
ByKey: TypeAlias = dict[RecordingKey, list[KeptEvent]]


class _Borrowed:
    """A connection of the pool, and what is prepared on it."""

    def __init__(self, connection: AsyncConnection, driver: Any, prepared: "dict[str, PreparedStatement[Any]]") -> None:
        self.connection = connection
        self.driver = driver
        self._prepared = prepared

    async def fetch(self, statement: str, *parameters: object) -> list[Any]:
        """Execute a statement, and return its rows."""
        prepared = self._prepared.get(statement)
        if prepared is None:
            # Named after what it says: behind a pooler that was not noticed yet, it is never another statement.
            name = f"tiw_{sha256(statement.encode()).hexdigest()[:16]}"
            prepared = self._prepared[statement] = await self.driver.prepare(statement, name=name)
        rows: list[Any] = await prepared.fetch(*parameters)
        return rows

    async def drop(self) -> None:
        """Close it."""
        self.driver.terminate()
        await self.connection.invalidate()
        await self.connection.close()


class PostgresDirect:
    """See `store.direct.Direct`. `is_pooled` says whether others share our connections, transaction by transaction.

    At most `most_idle` connections of the engine's pool are kept between two uses, so that one costs no round trip: the
    pool asks a connection whether it is well before it gives it.
    """

    def __init__(self, engine: AsyncEngine, *, is_pooled: Callable[[], bool], most_idle: int) -> None:
        self._engine = engine
        self._is_pooled = is_pooled
        self._most_idle = most_idle
        self._idle: list[_Borrowed] = []
        self._others_are_new = False

    async def apply(self, kept: Mapping[str, KeptEvent]) -> bool:
        """See `Direct`."""
        return bool(await self._run(lambda borrowed: self._apply(borrowed, kept.values())))

    async def fetch(self, statement: ClauseElement, parameters: Mapping[str, object]) -> list[Any] | None:
        """See `Direct`."""
        written, names = _numbered(statement)
        return await self._run(lambda borrowed: borrowed.fetch(written, *[parameters[name] for name in names]))

    async def _run(self, operation: Callable[[_Borrowed], Awaitable[Result]]) -> Result | None:
        """Run `operation` on a connection; None if the careful way is to be taken."""
        if self._is_pooled():
            await self.close()  # what is not borrowed again is the others'
            return None
        try:
            borrowed = await self._borrow()
            try:
                result = await operation(borrowed)
            except BaseException:
                # Whatever failed: the connection may lead to a server that is read-only now, have lost what was
                # prepared on it, or be in the middle of a statement.
                await borrowed.drop()
                raise
            await self._give_back(borrowed)
        except (TimeoutError, PoolTimeoutError, asyncpg.QueryCanceledError):
            raise  # another attempt would take as long
        except Exception:  # noqa: BLE001 - the careful way connects anew, and says what it is
            return None
        return result

    async def close(self) -> None:
        """See `Direct`."""
        while self._idle:
            await self._idle.pop().connection.close()

    async def _apply(self, borrowed: _Borrowed, kept: Collection[KeptEvent]) -> bool:
        """Return whether all is done; if not, the careful way is to be taken."""
        new: ByKey = {}
        known: ByKey = {}
        alone: list[KeptEvent] = []
        for one in kept:
            if not makes_recording(one.event):
                alone.append(one)
                continue
            # What starts a recording is nearly always the first that is heard of it, and nothing else is, except where
            # one queue is worked off before another.
            is_new = self._others_are_new or type(one.event) is OnlineRecordStarted
            (new if is_new else known).setdefault(recording_key(one.event), []).append(one)
        for key in new.keys() & known.keys():
            new[key] += known.pop(key)
        if new or alone:
            keys = sorted(new)
            to_keep = [*alone, *(one for some in new.values() for one in some)]
            written, count = await _write(borrowed, [recording_row(new[key]) for key in keys], {}, to_keep)
            there = {} if len(written) == len(keys) else {key: new[key] for key in keys if _label(key) not in written}
            if count != len(to_keep) - sum(map(len, there.values())):
                return False  # an event that belongs to no recording was there, or one of another recording
            self._others_are_new = self._others_are_new and len(there) * 2 < len(keys)
            known |= there
        return not known or await self._bring_up_to_date(borrowed, known)

    async def _bring_up_to_date(self, borrowed: _Borrowed, by_key: ByKey) -> bool:
        keys = sorted(by_key)
        rows: list[dict[str, Any]] = []
        versions: dict[str, str] = {}
        unkept: list[KeptEvent] = []
        for key, (version, there) in zip(keys, await _read(borrowed, keys), strict=True):
            merged = None if there is None else _merged(by_key[key], there)
            if there is None or merged is None:
                return False
            unkept += [one for one in by_key[key] if one.event_id not in there]
            rows.append({**recording_row(merged), "version": version})
            if version is not None:
                versions[_label(key)] = version
        self._others_are_new = len(rows) > 1 and len(versions) * 2 < len(rows)
        written, count = await _write(borrowed, rows, versions, unkept)
        return len(written) == len(rows) and count == len(unkept)

    async def _borrow(self) -> _Borrowed:
        while self._idle:
            borrowed = self._idle.pop()
            if not borrowed.driver.is_closed():
                return borrowed
            await borrowed.drop()
        connection = await self._engine.connect()
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        # What was prepared when it was borrowed before is still there.
        return _Borrowed(connection, driver, raw.info.setdefault("tiw_prepared", {}))

    async def _give_back(self, borrowed: _Borrowed) -> None:
        if len(self._idle) < self._most_idle:
            self._idle.append(borrowed)
        else:
            await borrowed.connection.close()


def _label(key: RecordingKey) -> str:
    return f"{key[0]}:{key[1]}"


def _merged(some: Iterable[KeptEvent], there: Mapping[str, KeptEvent]) -> list[KeptEvent] | None:
    """Return the events of a recording with `some`; None if one comes again and changes what is there of it."""
    merged = dict(there)
    for one in some:
        before = merged.setdefault(one.event_id, one)
        if before is not one and (
            (one.received_at_us, one.body) < (before.received_at_us, before.body)
            or one.source < before.source
            or merge_verified(one.verified, before.verified) is not before.verified
        ):
            return None
    return [*merged.values()]


async def _read(
    borrowed: _Borrowed, keys: Sequence[RecordingKey]
) -> list[tuple[str | None, dict[str, KeptEvent] | None]]:
    """Return of each recording its version, None if there is none, and its events; None if these are not plain."""
    found: list[tuple[str | None, dict[str, KeptEvent] | None]] = [(None, {})] * len(keys)
    wanted = [{"sdk_app_id": app, "task_id": task} for app, task in keys]
    if len(keys) == 1:
        rows = await borrowed.fetch(_reading(_SAME_PLAN), _json(wanted))
    else:
        rows = await borrowed.fetch(_reading(_NEW_PLAN), _json(wanted), [1])
    for number, group in groupby(rows, itemgetter(0)):
        some = [*group]
        found[number - 1] = (some[0][1], _events(some) if len(some) < MOST_EVENTS else None)
    return found


def _events(rows: Iterable[Any]) -> dict[str, KeptEvent] | None:
    """Return the events of a recording."""
    found: dict[str, KeptEvent] = {}
    for _, _, event_id, routing_key, received_at_us, source, verified, body in rows:
        if routing_key not in EVENT_TYPES:
            continue  # null, where there is none; or our own
        event = redecode(body, routing_key=routing_key, received_at_us=received_at_us)
        if not makes_recording(event):
            return None
        found[event_id] = KeptEvent(
            event=event, event_id=event_id, received_at_us=received_at_us, body=body, source=source, verified=verified
        )
    return found


async def _write(
    borrowed: _Borrowed, rows: Sequence[dict[str, Any]], versions: Mapping[str, str], kept: Iterable[KeptEvent]
) -> tuple[Collection[str], int]:
    """Return the labels of the recordings that were written, and how many events were inserted.

    `rows` are in the order of their keys. Those with a version, which are also in `versions` by their labels, are
    changed; the others are inserted if they are not there. Events are inserted that belong to a recording that was
    written, or to none.
    """
    of_events = [event_row(one) for one in sorted(kept, key=attrgetter("event_id"))]
    apart = [[row.pop("body") for row in of_events]]
    apart += [[_json(row.pop(name)) for row in rows] for name in _JSON]
    ((count, written),) = await borrowed.fetch(_writing(), _json(rows), _json(versions), _json(of_events), *apart)
    return set(written), count


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# Rows come as JSON: the driver takes long over each value of an array, and PostgreSQL plans anew for each length of it.
# What is JSON itself comes apart, as it would be parsed twice.
_JSON: Final = [column.name for column in recordings.c if isinstance(column.type, JSON)]


_SAME_PLAN: Final = ""
#: PostgreSQL keeps a plan if it looks no dearer than one for the parameters at hand: this one looks ten times as dear.
#: A plan that was made when the tables had one page would read them whole for every recording of a backlog, until they
#: are analyzed anew.
_NEW_PLAN: Final = "CROSS JOIN unnest($2::int[]) AS once"


@cache
def _reading(plan: str) -> str:
    # Each LIMIT keeps a look into an index what it is: without, the planner may join with the whole table.
    return f"""
SELECT wanted.number, recording.version, event.*
FROM ROWS FROM (
    json_to_recordset($1::text::json) AS (sdk_app_id bigint, task_id text)
) WITH ORDINALITY AS wanted (sdk_app_id, task_id, number) {plan}
LEFT JOIN LATERAL (
    SELECT xmin::text AS version FROM recordings
    WHERE recordings.sdk_app_id = wanted.sdk_app_id AND recordings.task_id = wanted.task_id LIMIT 1
) AS recording ON true
LEFT JOIN LATERAL (
    SELECT event_id, routing_key, received_at_us, source, verified, body FROM events
    WHERE events.sdk_app_id = wanted.sdk_app_id AND events.task_id = wanted.task_id
    ORDER BY routing_key, contradicted, outranks, timestamp, event_id LIMIT {MOST_EVENTS}
) AS event ON true
ORDER BY wanted.number
"""  # noqa: S608 - made of names of columns


@cache
def _writing() -> str:
    # A known recording is inserted where somebody has just forgotten it: with what is not there any more, so that it is
    # not as expected.
    of_recordings, of_events = _types(recordings, but=_JSON), _types(events, but=["body"])
    names, event_names = ", ".join(of_recordings), ", ".join(of_events)
    values = ", ".join(f"{name}::jsonb" for name in _JSON)
    changes = ", ".join(f"{column.name} = excluded.{column.name}" for column in recordings.c if not column.primary_key)
    return f"""
WITH given AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        json_to_recordset($1::text::json) AS ({_columns(of_recordings)}, version text),
        {", ".join(f"unnest(${number}::text[])" for number, _ in enumerate(_JSON, 5))}
    ) AS given ({names}, version, {", ".join(_JSON)})
), inserted AS (
    INSERT INTO recordings ({names}, {", ".join(_JSON)}) SELECT {names}, {values} FROM given WHERE version IS NULL
    ON CONFLICT DO NOTHING RETURNING sdk_app_id, task_id
), updated AS (
    INSERT INTO recordings ({names}, {", ".join(_JSON)}) SELECT {names}, {values} FROM given WHERE version IS NOT NULL
    ON CONFLICT (sdk_app_id, task_id) DO UPDATE SET {changes}
    WHERE recordings.xmin::text = (SELECT $2::text::jsonb) ->> (excluded.sdk_app_id || ':' || excluded.task_id)
    RETURNING sdk_app_id, task_id, xmax::text <> '0' AS was_there
), written AS MATERIALIZED (
    SELECT sdk_app_id, task_id, true AS was_expected FROM inserted
    UNION ALL SELECT sdk_app_id, task_id, was_there FROM updated
), kept AS (
    INSERT INTO events ({event_names}, body)
    SELECT {event_names}, body FROM ROWS FROM (
        json_to_recordset($3::text::json) AS ({_columns(of_events)}), unnest($4::bytea[])
    ) AS event ({event_names}, body)
    WHERE task_id IS NULL OR routing_key = '{RECORDING_ARCHIVED}'
    OR (sdk_app_id, task_id) IN (SELECT sdk_app_id, task_id FROM written)
    ORDER BY event_id COLLATE "C" ON CONFLICT DO NOTHING RETURNING event_id
)
SELECT (SELECT count(*) FROM kept), ARRAY(SELECT sdk_app_id || ':' || task_id FROM written WHERE was_expected)
"""  # noqa: S608 - made of names of columns


def _types(table: Table, *, but: Collection[str]) -> dict[str, str]:
    """Return the types of a table's columns, by their names."""
    kinds = {column.name: column.type for column in table.c if column.name not in but}
    return {name: "text" if isinstance(kind, Text) else kind.compile(_DIALECT).lower() for name, kind in kinds.items()}


def _columns(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


@cache
def _numbered(statement: ClauseElement) -> tuple[str, tuple[str, ...]]:
    """Return a statement as asyncpg takes it, and the names of its parameters in their order."""
    compiled = statement.compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what every statement compiles to
    return str(compiled), tuple(compiled.positiontup or ())
