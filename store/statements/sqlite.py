"""What SQLite does its own way: rows come as rows of one prepared statement, lists as JSON, and one process writes."""

import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import msgspec
import sqlalchemy
from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    TextClause,
    UnaryExpression,
    bindparam,
    case,
    func,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.sql.dml import Update
from sqlalchemy.sql.operators import custom_op

from store.connection import AsyncConnection
from store.statements.dialect import RecordingKey, Values, on_event_conflict, rendered, select_recordings
from store.tables import events, recordings

has_one_writer = True

_DIALECT: sqlalchemy.Dialect = SQLiteDialect(paramstyle="named")


def insert(table: Table) -> sqlite.Insert:
    """See `Dialect`."""
    return sqlite.insert(table)


def render(statement: ClauseElement) -> TextClause:
    """See `Dialect`."""
    return rendered(statement, _DIALECT)


def ids_parameter(ids: Collection[str]) -> object:
    """See `Dialect`."""
    return msgspec.json.encode(list(ids)).decode()


def ids_column(name: str) -> ColumnElement[str]:
    """See `Dialect`."""
    return func.json_each(bindparam(name, type_=Text)).table_valued("value").c.value


def is_among(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """See `Dialect`."""
    return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))


def keys_parameters(keys: Sequence[RecordingKey]) -> dict[str, Any]:
    """See `Dialect`."""
    return {"pairs": msgspec.json.encode(keys).decode()}


def wanted_keys() -> FromClause:
    """See `Dialect`."""
    pairs = func.json_each(bindparam("pairs")).table_valued("value")
    app, task = (func.json_extract(pairs.c.value, f"$[{index}]") for index in range(2))
    return select(app.label("sdk_app_id"), task.label("task_id")).subquery()


def holds(body: ColumnElement[bytes], part: ColumnElement[bytes]) -> ColumnElement[bool]:
    """See `Dialect`."""
    return func.instr(body, part) > 0


async def begin_reading(connection: AsyncConnection) -> None:
    """See `Dialect`: every transaction is so."""


@asynccontextmanager
async def browsing(connection: AsyncConnection, *, timeout_s: float) -> AsyncIterator[None]:
    """See `Dialect`: a statement is not told when to end, but asks now and then."""
    ends_at = [time.monotonic() + timeout_s]
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.set_progress_handler(lambda: bool(ends_at) and time.monotonic() > ends_at[0], _INSTRUCTIONS)
    try:
        yield
    finally:
        # Whoever has the connection next has all the time.
        ends_at.clear()


#: Of SQLite's virtual machine, between two looks at the clock: some milliseconds.
_INSTRUCTIONS: Final = 100_000


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """See `Dialect`: https://www.sqlite.org/optoverview.html#disqualifying_where_clause_terms_using_unary_."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def first_line(column: ColumnElement[str], *, characters: int) -> ColumnElement[str]:
    """See `Dialect`."""
    end = func.instr(column, "\n")
    return func.substr(column, 1, case((end.between(1, characters), end - 1), else_=characters))


def has_user(name: str) -> ColumnElement[bool]:
    """See `Dialect`: in a text the quotes would be escaped."""
    member = f'"user_id":{msgspec.json.encode(name).decode()}'
    videos = type_coerce(recordings.c.videos, Text)
    return or_(recordings.c.record_user_id == name, func.instr(videos, member) > 0)


async def lock(connection: AsyncConnection, key: int) -> None:
    """See `Dialect`: nobody else writes meanwhile."""


async def try_lock(connection: AsyncConnection, key: int) -> bool:
    """See `Dialect`: nobody else writes meanwhile."""
    del connection, key
    return True


async def insert_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> set[RecordingKey]:
    """See `Dialect`."""
    keys = [(row["sdk_app_id"], row["task_id"]) for row in rows]
    there = {(row.sdk_app_id, row.task_id) for row in await connection.execute(_there(), keys_parameters(keys))}
    new = [row for row in rows if (row["sdk_app_id"], row["task_id"]) not in there]
    if new:
        await connection.execute(_insert_recording(), new)
    return set(keys) - there


async def lock_recordings(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> set[RecordingKey]:
    """See `Dialect`: nobody else writes meanwhile, so that all are there."""
    del connection
    return set(keys)


async def upsert_events(connection: AsyncConnection, rows: Sequence[Values]) -> set[str]:
    """See `Dialect`."""
    ids = [row["event_id"] for row in rows]
    there = set((await connection.execute(_existing_events(), {"ids": ids_parameter(ids)})).scalars())
    await connection.execute(_upsert_event(), rows)
    return set(ids) - there


async def update_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> None:
    """See `Dialect`."""
    of = [{**row, "of_sdk_app_id": row["sdk_app_id"], "of_task_id": row["task_id"]} for row in rows]
    await connection.execute(_update_recording(), of)


@cache
def _there() -> Select[Any]:
    return select_recordings(wanted_keys())


@cache
def _insert_recording() -> Insert:
    return sqlalchemy.insert(recordings)


@cache
def _existing_events() -> Select[Any]:
    return select(events.c.event_id).where(is_among(events.c.event_id, "ids"))


@cache
def _upsert_event() -> TextClause:
    new = insert(events).values({column.name: bindparam(column.name) for column in events.c})
    return render(new.on_conflict_do_update(**on_event_conflict(new)))


@cache
def _update_recording() -> Update:
    return (
        update(recordings)
        .where(recordings.c.sdk_app_id == bindparam("of_sdk_app_id"), recordings.c.task_id == bindparam("of_task_id"))
        .values({column.name: bindparam(column.name) for column in recordings.c if not column.primary_key})
    )
