"""What both databases have in common: the functions that each has, and the parts of their statements that are the same.

There are as many statements for a hundred events as for one. Each is built once per database and says the same
whatever the group, so that nothing is composed, compiled or planned anew. Rows come and are taken in the order of
their keys by everybody, so that nobody waits in a circle.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import sqlalchemy
from sqlalchemy import (
    Boolean,
    ClauseElement,
    ColumnElement,
    Delete,
    FromClause,
    Row,
    ScalarSelect,
    Select,
    Table,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.sql.compiler import SQLCompiler

from schemas import EVENT_TYPES, UNRECOGNIZED
from store.connection import AsyncConnection
from store.tables import events, recordings

if TYPE_CHECKING:
    # A store has one of them.
    from sqlalchemy.dialects import postgresql, sqlite

RecordingKey: TypeAlias = tuple[int, str]
Values: TypeAlias = Mapping[str, Any]
ConflictInsert: TypeAlias = "postgresql.Insert | sqlite.Insert"


class Dialect(Protocol):
    """The functions of `store.statements.postgresql` and `store.statements.sqlite`."""

    #: Whether the database has one writer at a time, and its waiters poll.
    has_one_writer: bool

    def __hash__(self) -> int: ...

    def insert(self, table: Table) -> ConflictInsert:
        """Return an INSERT that knows ON CONFLICT, which SQLAlchemy has once per database."""

    def render(self, statement: ClauseElement) -> TextClause:
        """Return a statement as text with the same parameters; see `rendered`."""

    def ids_parameter(self, ids: Collection[str]) -> object:
        """Return a list of ids as one parameter."""

    def ids_column(self, name: str) -> ColumnElement[str]:
        """Return a column of the ids in the parameter of this name."""

    def is_among(self, column: ColumnElement[str], name: str) -> ColumnElement[bool]:
        """Say whether a column's value is in the parameter of this name."""

    def keys_parameters(self, keys: Sequence[RecordingKey]) -> dict[str, Any]:
        """Return the parameters that `wanted_keys` reads."""

    def wanted_keys(self) -> FromClause:
        """Return a table of sdk_app_id and task_id."""

    def holds(self, body: ColumnElement[bytes], part: ColumnElement[bytes]) -> ColumnElement[bool]:
        """Say whether bytes hold others."""

    async def begin_reading(self, connection: AsyncConnection) -> None:
        """Let all statements of a connection see the database at one moment, and change nothing."""

    def browsing(self, connection: AsyncConnection, *, timeout_s: float) -> AbstractAsyncContextManager[None]:
        """Let statements of a connection that reads take no longer than this, and the way of an index."""

    def unindexed(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return a column by which no index is to be chosen, where the database would not weigh what that costs."""

    def first_line(self, column: ColumnElement[str], *, characters: int) -> ColumnElement[str]:
        """Return the first line of a text, so many characters of it."""

    def has_user(self, name: str) -> ColumnElement[bool]:
        """Say whether a recording is by this RecordUserId, or has a file of this user's stream."""

    async def lock(self, connection: AsyncConnection, key: int) -> None:
        """Wait until no other transaction holds this lock, and hold it until this one ends."""

    async def try_lock(self, connection: AsyncConnection, key: int) -> bool:
        """Do the same without waiting; False if another transaction holds it."""

    async def insert_recordings(self, connection: AsyncConnection, rows: Sequence[Values]) -> set[RecordingKey]:
        """Insert the recordings that are not there yet, and return their keys: they are locked by that.

        `rows` are in the order of their keys.
        """

    async def lock_recordings(self, connection: AsyncConnection, keys: Sequence[RecordingKey]) -> set[RecordingKey]:
        """Let nobody else change these recordings, or read their events to fold them, until the transaction ends.

        Returns the keys of those that are still there, of such as this transaction has seen: others were forgotten.
        """

    async def upsert_events(self, connection: AsyncConnection, rows: Sequence[Values]) -> set[str]:
        """Keep events, and return the ids of those that are now as in `rows`, which are in the order of their ids.

        Of two acceptances of one event the recognized one is kept, then the earlier. SQLite tells only of new ones.
        """

    async def update_recordings(self, connection: AsyncConnection, rows: Sequence[Values]) -> None:
        """Bring recordings that are there to `rows`."""


async def read_winners(
    dialect: Dialect, connection: AsyncConnection, keys: Sequence[RecordingKey], *, known_ids: Collection[str]
) -> Sequence[Row[Any]]:
    """Return the events that count for these recordings, at most one per type and recording, however many there are.

    Those that the vendor contradicts count for a recording that has no others. Rows of event_id, received_at_us,
    source, verified and body, which is None for `known_ids`: those need not be read again.
    """
    found = {row[:2]: row[2:] for row in await connection.execute(_winner_ids(dialect), _of(dialect, keys, False))}
    without = [key for key in keys if not any(found.get(key, ()))]
    if without:
        contradicted = await connection.execute(_winner_ids(dialect), _of(dialect, without, True))
        found |= {row[:2]: row[2:] for row in contradicted}
    ids = sorted({event_id for winners in found.values() for event_id in winners if event_id is not None})
    unknown = [event_id for event_id in ids if event_id not in known_ids]
    parameters = {"ids": dialect.ids_parameter(ids), "unknown": dialect.ids_parameter(unknown)}
    return (await connection.execute(_bodies(dialect), parameters)).all()


async def delete_recordings(dialect: Dialect, connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    """Delete recordings."""
    await connection.execute(_delete(dialect), dialect.keys_parameters(keys))


_CONTRADICTED: Final = bindparam("contradicted", type_=Boolean)


def _of(dialect: Dialect, keys: Sequence[RecordingKey], contradicted: bool) -> dict[str, Any]:
    return dialect.keys_parameters(keys) | {"contradicted": contradicted}


@cache
def _winner_ids(dialect: Dialect) -> Select[Any]:
    wanted = dialect.wanted_keys()
    winners = (_winner(wanted, event_type) for event_type in EVENT_TYPES)
    return select(wanted.c.sdk_app_id, wanted.c.task_id, *winners).select_from(wanted)


def _winner(wanted: FromClause, event_type: str) -> ScalarSelect[str]:
    """Select the winner's id by one look into `ix_events_winner`."""
    return (
        select(events.c.event_id)
        .where(
            events.c.sdk_app_id == wanted.c.sdk_app_id,
            events.c.task_id == wanted.c.task_id,
            events.c.routing_key == event_type,
            events.c.contradicted == _CONTRADICTED,
        )
        .order_by(events.c.outranks.desc(), events.c.timestamp.desc(), events.c.event_id.desc())
        .limit(1)
        .correlate(wanted)
        .scalar_subquery()
    )


@cache
def _bodies(dialect: Dialect) -> Select[Any]:
    body = case((dialect.is_among(events.c.event_id, "unknown"), events.c.body)).label("body")
    kept = (events.c.event_id, events.c.received_at_us, events.c.source, events.c.verified)
    return select(*kept, body).where(dialect.is_among(events.c.event_id, "ids"))


@cache
def _delete(dialect: Dialect) -> Delete:
    wanted = dialect.wanted_keys()
    return delete(recordings).where(
        tuple_(recordings.c.sdk_app_id, recordings.c.task_id).in_(select(wanted.c.sdk_app_id, wanted.c.task_id))
    )


# For the two dialects -------------------------------------------------------------------------------------------------
def select_recordings(wanted: FromClause) -> Select[Any]:
    """Select the keys of those recordings that are there, in their order, and lock them where that can be done."""
    keys = select(recordings.c.sdk_app_id, recordings.c.task_id).select_from(wanted).where(is_wanted(wanted))
    return keys.order_by(recordings.c.sdk_app_id, recordings.c.task_id).with_for_update(of=recordings)


def is_wanted(wanted: FromClause) -> ColumnElement[bool]:
    """Say whether a recording is in a table of keys."""
    return and_(recordings.c.sdk_app_id == wanted.c.sdk_app_id, recordings.c.task_id == wanted.c.task_id)


def on_event_conflict(insert: ConflictInsert) -> dict[str, Any]:
    """Return what becomes of an event that is there already, as arguments of `on_conflict_do_update`."""
    new = insert.excluded
    is_known, was_known = new.routing_key != UNRECOGNIZED, events.c.routing_key != UNRECOGNIZED
    is_same = and_(
        is_known == was_known,
        new.sdk_app_id == events.c.sdk_app_id,
        new.task_id.is_not_distinct_from(events.c.task_id),
    )
    is_earlier = tuple_(new.received_at_us, new.body) < tuple_(events.c.received_at_us, events.c.body)
    precedes = or_(and_(is_known, ~was_known), and_(is_same, is_earlier))
    # What was true once stays true, and what was false stays false unless it becomes true.
    verified = func.coalesce(or_(new.verified, events.c.verified), new.verified, events.c.verified)
    together: dict[str, ColumnElement[Any]] = {
        "source": case((new.source < events.c.source, new.source), else_=events.c.source),
        "verified": verified,
        "contradicted": verified.is_(false()),
    }
    says_more = or_(*(value.is_distinct_from(events.c[name]) for name, value in together.items()))
    return {
        "index_elements": [events.c.event_id],
        "set_": {
            column.name: case((precedes, new[column.name]), else_=column)
            for column in events.c
            if not column.primary_key and column.name not in together
        }
        | {name: case((is_same, value), else_=new[name]) for name, value in together.items()},
        "where": or_(precedes, and_(is_same, says_more)),
    }


def rendered(statement: ClauseElement, dialect: sqlalchemy.Dialect) -> TextClause:
    """Return a statement as text with the same parameters.

    SQLAlchemy compiles an INSERT with ON CONFLICT anew for each execution, which takes longer than the execution:
    https://github.com/sqlalchemy/sqlalchemy/issues/10445
    """
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what every statement compiles to
    parameters = [
        bindparam(name, one.value, type_=one.type) if one.value is not None else bindparam(name, type_=one.type)
        for one, name in compiled.bind_names.items()
    ]
    # `text` takes no parameter that a colon follows, as in a cast.
    written = re.sub(r":(\w+)::(\w+)", r"CAST(:\1 AS \2)", str(compiled))
    return text(written).bindparams(*parameters)
