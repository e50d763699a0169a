"""The statements that bring a group of events into the tables: as many for a hundred events as for one.

Each is built once per database and says the same whatever the group, so that nothing is composed, compiled or planned
anew. PostgreSQL gets the rows as one array per column, SQLite as rows of one prepared statement, and lists as JSON.
Rows come and are taken in the order of their keys by everybody, so that nobody waits in a circle.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Delete,
    FromClause,
    Insert,
    Row,
    ScalarSelect,
    Select,
    Table,
    Text,
    TextClause,
    and_,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Update
from sqlalchemy.types import TypeEngine

from schemas import EVENT_TYPES, UNRECOGNIZED
from store.store import POSTGRESQL, SQLITE, rendered
from store.tables import events, recordings

RecordingKey: TypeAlias = tuple[int, str]
Values: TypeAlias = Mapping[str, Any]

_RECORDING_KEY = ("sdk_app_id", "task_id")


async def insert_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> set[RecordingKey]:
    """Insert the recordings that are not there yet, and return their keys: they are locked by that.

    `rows` are in the order of their keys.
    """
    if _is_sqlite(connection):
        # Nobody else writes meanwhile.
        keys = [(row["sdk_app_id"], row["task_id"]) for row in rows]
        there = {(row.sdk_app_id, row.task_id) for row in await connection.execute(_lock(True), _pairs(True, keys))}
        new = [row for row in rows if (row["sdk_app_id"], row["task_id"]) not in there]
        if new:
            await connection.execute(_insert_recording(), new)
        return set(keys) - there
    inserted = await connection.execute(_insert_recordings(), _columns(recordings, rows))
    return {(row.sdk_app_id, row.task_id) for row in inserted}


async def lock_recordings(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    """Let nobody else change these recordings, or read their events to fold them, until the transaction ends."""
    if not _is_sqlite(connection):
        await connection.execute(_lock(False), _pairs(False, keys))


async def upsert_events(connection: AsyncConnection, rows: Sequence[Values]) -> set[str]:
    """Keep events, and return the ids of those that are now as in `rows`, which are in the order of their ids.

    Of two acceptances of one event the recognized one is kept, then the earlier. SQLite tells only of new ones.
    """
    if _is_sqlite(connection):
        ids = [row["event_id"] for row in rows]
        there = set((await connection.execute(_existing_events(), {"ids": _json(ids)})).scalars())
        await connection.execute(_upsert_event(), rows)
        return set(ids) - there
    return set((await connection.execute(_upsert_events(), _columns(events, rows))).scalars())


async def read_winners(
    connection: AsyncConnection, keys: Sequence[RecordingKey], *, known_ids: Collection[str]
) -> Sequence[Row[Any]]:
    """Return the events that count for these recordings, at most one per type and recording, however many there are.

    Rows of event_id, received_at_us and body, which is None for `known_ids`: those need not be read again.
    """
    is_sqlite = _is_sqlite(connection)
    winners = await connection.execute(_winner_ids(is_sqlite), _pairs(is_sqlite, keys))
    ids = sorted({event_id for row in winners for event_id in row if event_id is not None})
    unknown = [event_id for event_id in ids if event_id not in known_ids]
    parameters: dict[str, Any] = {"ids": ids, "unknown": unknown}
    if is_sqlite:
        parameters = {name: _json(values) for name, values in parameters.items()}
    return (await connection.execute(_bodies(is_sqlite), parameters)).all()


async def update_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> None:
    """Bring recordings that are there to `rows`."""
    if _is_sqlite(connection):
        of = [{**row, "of_sdk_app_id": row["sdk_app_id"], "of_task_id": row["task_id"]} for row in rows]
        await connection.execute(_update_recording(), of)
    else:
        await connection.execute(_update_recordings(), _columns(recordings, rows))


async def delete_recordings(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    """Delete recordings."""
    is_sqlite = _is_sqlite(connection)
    await connection.execute(_delete(is_sqlite), _pairs(is_sqlite, keys))


def _is_sqlite(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "sqlite"


def _json(values: Sequence[Any]) -> str:
    return msgspec.json.encode(values).decode()


def _pairs(is_sqlite: bool, keys: Sequence[RecordingKey]) -> dict[str, Any]:
    if is_sqlite:
        return {"pairs": _json(keys)}
    return {"wanted_apps": [app for app, _ in keys], "wanted_tasks": [task for _, task in keys]}


def _columns(table: Table, rows: Sequence[Values]) -> dict[str, list[Any]]:
    return {f"all_{column.name}": [row[column.name] for row in rows] for column in table.c}


def _wanted(is_sqlite: bool) -> FromClause:
    """Return a table of the keys in the parameters that `_pairs` makes."""
    if is_sqlite:
        pairs = func.json_each(bindparam("pairs")).table_valued("value")
        columns = (func.json_extract(pairs.c.value, f"$[{index}]") for index in range(2))
        return select(*(column.label(name) for column, name in zip(columns, _RECORDING_KEY, strict=True))).subquery()
    apps = bindparam("wanted_apps", type_=ARRAY(BigInteger, dimensions=1))
    tasks = bindparam("wanted_tasks", type_=ARRAY(Text, dimensions=1))
    return func.unnest(apps, tasks).table_valued(*_RECORDING_KEY).render_derived(name="wanted")


def _rows(table: Table) -> FromClause:
    """Return a table of the rows in the parameters that `_columns` makes."""
    arrays = [bindparam(f"all_{column.name}", type_=ARRAY(_plain(column.type), dimensions=1)) for column in table.c]
    return func.unnest(*arrays).table_valued(*(column.name for column in table.c)).render_derived(name="new")


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column's values on PostgreSQL, without the collation that belongs to the column."""
    return Text() if isinstance(kind, Text) else kind.dialect_impl(POSTGRESQL)


def _is_wanted(wanted: FromClause) -> ColumnElement[bool]:
    return and_(recordings.c.sdk_app_id == wanted.c.sdk_app_id, recordings.c.task_id == wanted.c.task_id)


@cache
def _lock(is_sqlite: bool) -> Select[Any]:
    wanted = _wanted(is_sqlite)
    keys = select(recordings.c.sdk_app_id, recordings.c.task_id).select_from(wanted).where(_is_wanted(wanted))
    return keys.order_by(recordings.c.sdk_app_id, recordings.c.task_id).with_for_update(of=recordings)


@cache
def _insert_recording() -> Insert:
    return insert(recordings)


@cache
def _insert_recordings() -> TextClause:
    rows = _rows(recordings)
    values = postgresql.insert(recordings).from_select(list(recordings.c), select(*rows.c)).on_conflict_do_nothing()
    return rendered(values.returning(recordings.c.sdk_app_id, recordings.c.task_id), POSTGRESQL)


@cache
def _update_recordings() -> Update:
    rows = _rows(recordings)
    values = {column.name: rows.c[column.name] for column in recordings.c if not column.primary_key}
    return update(recordings).values(values).where(_is_wanted(rows))


@cache
def _update_recording() -> Update:
    return (
        update(recordings)
        .where(recordings.c.sdk_app_id == bindparam("of_sdk_app_id"), recordings.c.task_id == bindparam("of_task_id"))
        .values({column.name: bindparam(column.name) for column in recordings.c if not column.primary_key})
    )


@cache
def _delete(is_sqlite: bool) -> Delete:
    wanted = _wanted(is_sqlite)
    return delete(recordings).where(
        tuple_(recordings.c.sdk_app_id, recordings.c.task_id).in_(select(wanted.c.sdk_app_id, wanted.c.task_id))
    )


@cache
def _existing_events() -> Select[Any]:
    return select(events.c.event_id).where(_among(events.c.event_id, "ids", is_sqlite=True))


@cache
def _upsert_events() -> TextClause:
    insert = postgresql.insert(events)
    upsert = insert.from_select(list(events.c), select(*_rows(events).c)).on_conflict_do_update(**_conflict(insert))
    return rendered(upsert.returning(events.c.event_id), POSTGRESQL)


@cache
def _upsert_event() -> TextClause:
    insert = sqlite.insert(events).values({column.name: bindparam(column.name) for column in events.c})
    return rendered(insert.on_conflict_do_update(**_conflict(insert)), SQLITE)


def _conflict(insert: postgresql.Insert | sqlite.Insert) -> dict[str, Any]:
    new = insert.excluded
    is_known, was_known = new.routing_key != UNRECOGNIZED, events.c.routing_key != UNRECOGNIZED
    precedes = or_(
        and_(is_known, ~was_known),
        and_(
            is_known == was_known,
            new.sdk_app_id == events.c.sdk_app_id,
            new.task_id.is_not_distinct_from(events.c.task_id),
            tuple_(new.received_at_us, new.body) < tuple_(events.c.received_at_us, events.c.body),
        ),
    )
    return {
        "index_elements": [events.c.event_id],
        "set_": {column.name: new[column.name] for column in events.c if not column.primary_key},
        "where": precedes,
    }


@cache
def _winner_ids(is_sqlite: bool) -> Select[Any]:
    wanted = _wanted(is_sqlite)
    return select(*(_winner(wanted, event_type) for event_type in EVENT_TYPES)).select_from(wanted)


def _winner(wanted: FromClause, event_type: str) -> ScalarSelect[str]:
    """Select the winner's id by one look into `ix_events_winner`."""
    return (
        select(events.c.event_id)
        .where(
            events.c.sdk_app_id == wanted.c.sdk_app_id,
            events.c.task_id == wanted.c.task_id,
            events.c.routing_key == event_type,
        )
        .order_by(events.c.outranks.desc(), events.c.timestamp.desc(), events.c.event_id.desc())
        .limit(1)
        .correlate(wanted)
        .scalar_subquery()
    )


@cache
def _bodies(is_sqlite: bool) -> Select[Any]:
    body = case((_among(events.c.event_id, "unknown", is_sqlite=is_sqlite), events.c.body)).label("body")
    wanted = _among(events.c.event_id, "ids", is_sqlite=is_sqlite)
    return select(events.c.event_id, events.c.received_at_us, body).where(wanted)


def _among(column: ColumnElement[str], name: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    if is_sqlite:
        return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))
    return column == any_(bindparam(name, type_=ARRAY(Text, dimensions=1)))
