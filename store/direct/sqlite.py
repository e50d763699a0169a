"""The direct way into SQLite: one thread, one connection, and one transaction for all groups that wait.

A step of a statement lets go of Python's lock and gets it back when the event loop lets it: so there are few, with many
rows each, and what is read comes as one row of JSON.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec
from sqlalchemy import ClauseElement, Table, bindparam
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from schemas import EVENT_TYPES, decode
from store.kept import KeptEvent, event_row, recording_key, recording_row
from store.recording import makes_recording
from store.statements import RecordingKey
from store.statements.dialect import on_event_conflict
from store.tables import events, recordings

#: At most so many events are one transaction, unless one group alone has more.
_MOST_AT_ONCE: Final = 1000

_Kept: TypeAlias = Mapping[str, KeptEvent]


class _Waiting(NamedTuple):
    kept: _Kept
    done: "asyncio.Future[bool]"


class SqliteDirect:
    """See `store.direct.Direct`. This process's writers stand in `line`; others are waited for for `busy_timeout_s`."""

    def __init__(self, path: Path, *, line: asyncio.Lock, busy_timeout_s: float) -> None:
        self._line = line
        self._file = _File(path, busy_timeout_s)
        self._waiting: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None
        self._thread: _Thread | None = None

    async def apply(self, kept: _Kept) -> bool:
        """See `store.direct.Direct`. Whatever goes wrong is left to the careful way, which says what it is."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(kept, done))
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="direct writes")
        return await done

    async def fetch(self, statement: ClauseElement, parameters: Mapping[str, object]) -> None:
        """See `store.direct.Direct`: always the careful way."""

    async def close(self) -> None:
        """See `store.direct.Direct`."""
        while self._working is not None:
            await asyncio.wait({self._working})
        # Taken off first: whoever writes meanwhile gets a thread of its own.
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.call(self._file.close)
            thread.end()

    async def _work(self) -> None:
        thread = self._thread = self._thread or _Thread()
        group: list[_Waiting] = []
        try:
            while self._waiting:
                async with self._line:
                    group = self._next_group()
                    kept = {event_id: one for waiting in group for event_id, one in waiting.kept.items()}
                    _settle(group, is_done=await thread.call(partial(self._file.apply, kept)))
        finally:
            self._working = None
            # Cancelled with all the loop's tasks: nobody waits for ever.
            _settle([*group, *self._waiting], is_done=False)
            self._waiting.clear()

    def _next_group(self) -> list[_Waiting]:
        """Take what waits into one transaction, up to where an event comes again."""
        group: list[_Waiting] = []
        ids: set[str] = set()
        while self._waiting:
            kept = self._waiting[0].kept
            if group and (len(ids) + len(kept) > _MOST_AT_ONCE or not ids.isdisjoint(kept)):
                break
            ids.update(kept)
            group.append(self._waiting.pop(0))
        return group


def _settle(group: Sequence[_Waiting], *, is_done: bool) -> None:
    for waiting in group:
        if not waiting.done.done():  # whoever waited was cancelled
            waiting.done.set_result(is_done)


class _Thread:
    """A thread that calls what it is given, one after the other."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[tuple[Callable[[], bool], asyncio.Future[bool]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="direct-sqlite")
        self._thread.start()

    def call(self, function: Callable[[], bool]) -> "asyncio.Future[bool]":
        """Call a function that never raises; the future has its result."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._inbox.put((function, future))
        return future

    def end(self) -> None:
        """End once everything is called."""
        self._inbox.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (work := self._inbox.get()) is not None:
            function, future = work
            result = function()
            with suppress(RuntimeError):  # the loop has ended
                future.get_loop().call_soon_threadsafe(_set, future, result)


def _set(future: "asyncio.Future[bool]", result: bool) -> None:
    if not future.done():
        future.set_result(result)


class _File:
    """The database's file and the thread's connection to it, opened at need."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def apply(self, kept: _Kept) -> bool:
        """Run one transaction; False if it was rolled back, whatever the reason."""
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            is_done = _apply(connection, kept)
            connection.execute("COMMIT" if is_done else "ROLLBACK")
        except Exception:  # noqa: BLE001 - the careful way meets it again, and says what it is
            self.close()
            return False
        return is_done

    def close(self) -> bool:
        """Let go of the file, with what was not committed."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        return True

    def _open(self) -> sqlite3.Connection:
        status = self._path.stat()
        identity = (status.st_dev, status.st_ino)
        # A backup was put in its place: what went on being written would be in no file any more.
        if self._connection is not None and self._identity != identity:
            self.close()
        if self._connection is None:
            # Only one that is there: the careful way makes it, for this user alone.
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=rw", uri=True, isolation_level=None, timeout=self._busy_timeout_s
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._identity = identity
        return self._connection


def _apply(connection: sqlite3.Connection, kept: _Kept) -> bool:
    """Do what `store.applying` does; False if not all of it can be done here."""
    last = _last_event(connection)
    _insert(connection, events, [_numbered(event_row(kept[event_id])) for event_id in sorted(kept)])
    by_key: dict[RecordingKey, list[KeptEvent]] = {}
    for one in kept.values():
        if makes_recording(one.event):
            by_key.setdefault(recording_key(one.event), []).append(one)
    if not by_key:
        return True
    # If all are new, so is all that there is of a recording that is new.
    are_new = _last_event(connection) - last == len(kept) and all(one.verified is not False for one in kept.values())
    winners = _read_winners(connection, by_key, of_new=not are_new)
    if winners is None:
        return False
    if are_new:
        winners = by_key | winners
    # Without a winner is a recording that has only events that the vendor contradicts, or whose ids are another's.
    if len(winners) < len(by_key):
        return False
    _insert(connection, recordings, [_written(recording_row(winners[key])) for key in sorted(winners)])
    return True


def _last_event(connection: sqlite3.Connection) -> int:
    """Return the number of the last event: they are numbered from one to the next."""
    return connection.execute("SELECT max(rowid) FROM events").fetchone()[0] or 0


#: Rows of one statement, so that few are prepared.
_ROWS_AT_ONCE: Final = (128, 64, 32, 16, 8, 4, 2, 1)


def _insert(connection: sqlite3.Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, or bring them up to date; those with the same members together, without the members that are None.

    What Python knows as None or a bool it hands to SQLite ten times as slowly as a number.
    """
    alike: dict[tuple[str, ...], list[list[Any]]] = {}
    for row in rows:
        names = tuple([name for name, value in row.items() if value is not None])
        alike.setdefault(names, []).append([value for value in row.values() if value is not None])
    for names, some in alike.items():
        at = 0
        while at < len(some):
            count = next(count for count in _ROWS_AT_ONCE if at + count <= len(some))
            values = [value for row in some[at : at + count] for value in row]
            connection.execute(_statement(table, names, count), values)
            at += count


@lru_cache(maxsize=256)
def _statement(table: Table, names: Sequence[str], rows: int) -> str:
    marks = ", ".join([f"({', '.join('?' * len(names))})"] * rows)
    into = f"{table.name} ({', '.join(names)})"
    return f"INSERT INTO {into} VALUES {marks} {_on_conflict(table)}"  # noqa: S608 - nobody's values


@cache
def _on_conflict(table: Table) -> str:
    """Return what becomes of a row that is there already: of an event as the careful way says, of a recording all."""
    new = insert(table).values({column.name: bindparam(column.name) for column in table.c})
    if table is events:
        new = new.on_conflict_do_update(**on_event_conflict(new))
    else:
        rest = {column.name: new.excluded[column.name] for column in table.c if not column.primary_key}
        new = new.on_conflict_do_update(index_elements=[*table.primary_key], set_=rest)
    text = str(new.compile(dialect=SQLiteDialect(), compile_kwargs={"literal_binds": True}))
    return text[text.index("ON CONFLICT") :]


def _numbered(row: dict[str, Any]) -> dict[str, Any]:
    row["outranks"] = +row["outranks"]
    row["contradicted"] = +row["contradicted"]
    return row


def _written(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("omitted_durations", "videos"):
        row[name] = msgspec.json.encode(row[name]).decode() if row[name] else "[]"
    row["status"] = row["status"].value
    row["failed"] = +row["failed"]
    return row


#: The events that count for the recordings in the first parameter, at most one per type and recording, as
#: `store.statements.dialect.read_winners` finds them; without the bodies of those in the second. With the third also of
#: recordings that are not there yet.
_WINNERS: Final = f"""
WITH wanted AS MATERIALIZED (
    SELECT json_extract(value, '$[0]') AS sdk_app_id, json_extract(value, '$[1]') AS task_id FROM json_each(?1)
    WHERE ?3 OR EXISTS (
        SELECT 1 FROM recordings
        WHERE sdk_app_id = json_extract(value, '$[0]') AND task_id = json_extract(value, '$[1]')
    )
),
types (name) AS (VALUES {", ".join(f"('{name}')" for name in EVENT_TYPES)})
SELECT json_group_array(json_array(
    wanted.sdk_app_id, wanted.task_id, event_id, received_at_us, source, verified,
    CASE WHEN event_id NOT IN (SELECT value FROM json_each(?2)) THEN hex(body) END
))
FROM wanted CROSS JOIN types CROSS JOIN events ON event_id = (
    SELECT one.event_id FROM events AS one
    WHERE one.sdk_app_id = wanted.sdk_app_id AND one.task_id = wanted.task_id
        AND one.routing_key = types.name AND one.contradicted = 0
    ORDER BY one.outranks DESC, one.timestamp DESC, one.event_id DESC LIMIT 1
)
"""  # noqa: S608 - nobody's values


class _Winner(msgspec.Struct, array_like=True, frozen=True):
    sdk_app_id: int
    task_id: str
    event_id: str
    received_at_us: int
    source: str
    verified: int | None
    body_hex: str | None


_winners = msgspec.json.Decoder(list[_Winner])


def _read_winners(
    connection: sqlite3.Connection, by_key: Mapping[RecordingKey, Sequence[KeptEvent]], *, of_new: bool
) -> dict[RecordingKey, list[KeptEvent]] | None:
    """Return the events that count for each recording; None if one is not to be understood here."""
    own = {one.event_id: one for some in by_key.values() for one in some}
    keys, ids = (msgspec.json.encode([*names]).decode() for names in (by_key, own))
    found: dict[RecordingKey, list[KeptEvent]] = {}
    for winner in _winners.decode(connection.execute(_WINNERS, (keys, ids, of_new)).fetchone()[0]):
        key = (winner.sdk_app_id, winner.task_id)
        if winner.body_hex is None:
            event, body = own[winner.event_id].event, own[winner.event_id].body
        else:
            body = bytes.fromhex(winner.body_hex)
            event = decode(body, received_at_us=winner.received_at_us).event
        if not makes_recording(event) or recording_key(event) != key:
            return None
        verified = None if winner.verified is None else bool(winner.verified)
        one = KeptEvent(
            event=event,
            event_id=winner.event_id,
            received_at_us=winner.received_at_us,
            body=body,
            source=winner.source,
            verified=verified,
        )
        found.setdefault(key, []).append(one)
    return found
