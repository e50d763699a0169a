"""What PostgreSQL does its own way: rows come as one array per column, locks are locks of rows and advisory ones."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import sqlalchemy
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ClauseElement,
    ColumnElement,
    FromClause,
    Select,
    Table,
    Text,
    TextClause,
    any_,
    bindparam,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.dml import Update
from sqlalchemy.types import TypeEngine

from store.connection import AsyncConnection
from store.statements.dialect import RecordingKey, Values, is_wanted, on_event_conflict, rendered, select_recordings
from store.tables import events, recordings

has_one_writer = False

_DIALECT: sqlalchemy.Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # the library gives it no types

_TEXTS = ARRAY(Text, dimensions=1)


def insert(table: Table) -> postgresql.Insert:
    """See `Dialect`."""
    return postgresql.insert(table)


def render(statement: ClauseElement) -> TextClause:
    """See `Dialect`."""
    return rendered(statement, _DIALECT)


def ids_parameter(ids: Collection[str]) -> object:
    """See `Dialect`."""
    return list(ids)


def ids_column(name: str) -> ColumnElement[str]:
    """See `Dialect`."""
    return func.unnest(bindparam(name, type_=_TEXTS)).table_valued("value").render_derived().c.value


def is_among(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """See `Dialect`."""
    return column == any_(bindparam(name, type_=_TEXTS))


def keys_parameters(keys: Sequence[RecordingKey]) -> dict[str, Any]:
    """See `Dialect`."""
    return {"wanted_apps": [app for app, _ in keys], "wanted_tasks": [task for _, task in keys]}


def wanted_keys() -> FromClause:
    """See `Dialect`."""
    apps = bindparam("wanted_apps", type_=ARRAY(BigInteger, dimensions=1))
    tasks = bindparam("wanted_tasks", type_=_TEXTS)
    return func.unnest(apps, tasks).table_valued("sdk_app_id", "task_id").render_derived(name="wanted")


def holds(body: ColumnElement[bytes], part: ColumnElement[bytes]) -> ColumnElement[bool]:
    """See `Dialect`."""
    return func.position(part.op("IN")(body)) > 0


async def begin_reading(connection: AsyncConnection) -> None:
    """See `Dialect`."""
    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


@asynccontextmanager
async def browsing(connection: AsyncConnection, *, timeout_s: float) -> AsyncIterator[None]:
    """See `Dialect`."""
    await connection.execute(_BROWSING, {"timeout": f"{round(timeout_s * 1000)}ms"})
    yield


#: Each listing has its index, and walks it in the order in which rows are shown until a page is full. A planner that
#: was told nothing of the tables yet would rather read a table whole and sort it.
_ONE_WAY: Final = (
    *("jit", "enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "enable_material"),
    "enable_memoize",
)
_BROWSING: Final = text(
    "SELECT set_config('statement_timeout', :timeout, true), set_config('max_parallel_workers_per_gather', '0', true), "
    + ", ".join(f"set_config('{name}', 'off', true)" for name in _ONE_WAY)
)


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """See `Dialect`: the planner weighs what it would cost."""
    return column


def first_line(column: ColumnElement[str], *, characters: int) -> ColumnElement[str]:
    """See `Dialect`."""
    return func.substr(func.split_part(column, "\n", 1), 1, characters)


def has_user(name: str) -> ColumnElement[bool]:
    """See `Dialect`."""
    whose = bindparam("whose_stream", [{"user_id": name}], type_=JSONB)
    return or_(recordings.c.record_user_id == name, recordings.c.videos.op("@>")(whose))


async def lock(connection: AsyncConnection, key: int) -> None:
    """See `Dialect`."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


async def try_lock(connection: AsyncConnection, key: int) -> bool:
    """See `Dialect`."""
    locked = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key})
    return bool(locked.scalar_one())


async def insert_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> set[RecordingKey]:
    """See `Dialect`."""
    inserted = await connection.execute(_insert_recordings(), _columns(recordings, rows))
    return {(row.sdk_app_id, row.task_id) for row in inserted}


async def lock_recordings(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> set[RecordingKey]:
    """See `Dialect`."""
    locked = await connection.execute(_lock_recordings(), keys_parameters(keys))
    return {(row.sdk_app_id, row.task_id) for row in locked}


async def upsert_events(connection: AsyncConnection, rows: Sequence[Values]) -> set[str]:
    """See `Dialect`."""
    return set((await connection.execute(_upsert_events(), _columns(events, rows))).scalars())


async def update_recordings(connection: AsyncConnection, rows: Sequence[Values]) -> None:
    """See `Dialect`."""
    await connection.execute(_update_recordings(), _columns(recordings, rows))


@cache
def _insert_recordings() -> TextClause:
    rows = _rows(recordings)
    values = insert(recordings).from_select(list(recordings.c), select(*rows.c)).on_conflict_do_nothing()
    return render(values.returning(recordings.c.sdk_app_id, recordings.c.task_id))


@cache
def _lock_recordings() -> Select[Any]:
    return select_recordings(wanted_keys())


@cache
def _upsert_events() -> TextClause:
    new = insert(events)
    upsert = new.from_select(list(events.c), select(*_rows(events).c)).on_conflict_do_update(**on_event_conflict(new))
    return render(upsert.returning(events.c.event_id))


@cache
def _update_recordings() -> Update:
    rows = _rows(recordings)
    values = {column.name: rows.c[column.name] for column in recordings.c if not column.primary_key}
    return update(recordings).values(values).where(is_wanted(rows))


def _columns(table: Table, rows: Sequence[Values]) -> dict[str, list[Any]]:
    return {f"all_{column.name}": [row[column.name] for row in rows] for column in table.c}


def _rows(table: Table) -> FromClause:
    """Return a table of the rows in the parameters that `_columns` makes."""
    arrays = [bindparam(f"all_{column.name}", type_=ARRAY(_plain(column.type), dimensions=1)) for column in table.c]
    return func.unnest(*arrays).table_valued(*(column.name for column in table.c)).render_derived(name="new")


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column's values, without the collation that belongs to the column."""
    return Text() if isinstance(kind, Text) else kind.dialect_impl(_DIALECT)
