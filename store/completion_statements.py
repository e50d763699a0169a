"""The statements about the completions of a group of events: one each, however many events there are.

Each is built once per database. The ids come as one parameter, an array on PostgreSQL and JSON on SQLite. Rows are
taken in the order of their keys by everybody, so that nobody waits in a circle.
"""

from collections.abc import Collection
from functools import cache
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Delete,
    Select,
    Text,
    TextClause,
    and_,
    bindparam,
    delete,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from store.sql import POSTGRESQL, SQLITE, now_us, rendered
from store.tables import completions

_Insert: TypeAlias = postgresql.Insert | sqlite.Insert

_KEY = (completions.c.consumer, completions.c.event_id)
_UNFINISHED = completions.c.completed_at_us.is_(None)

_CONSUMER = bindparam("of_consumer", type_=Text)
_OWNER = bindparam("by_owner", type_=Text)
_LEASE_US = bindparam("lease_us", type_=BigInteger)


def parameters(is_sqlite: bool, *, consumer: str, event_ids: Collection[str], owner: str) -> dict[str, Any]:
    """Return what all statements want; `claims` wants `lease_us` too."""
    ids = list(dict.fromkeys(event_ids))
    return {
        "of_consumer": consumer,
        "by_owner": owner,
        "event_ids": msgspec.json.encode(ids).decode() if is_sqlite else ids,
    }


@cache
def claims(is_sqlite: bool) -> TextClause:
    """Lease events that are free, and return their ids."""
    insert = _insert(is_sqlite, owner=_OWNER, leased_until_us=now_us() + _LEASE_US)
    upsert = insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={"owner": insert.excluded.owner, "leased_until_us": insert.excluded.leased_until_us},
        where=and_(_UNFINISHED, or_(completions.c.owner == _OWNER, completions.c.leased_until_us <= now_us())),
    )
    return rendered(upsert.returning(completions.c.event_id), SQLITE if is_sqlite else POSTGRESQL)


@cache
def completed(is_sqlite: bool) -> Select[Any]:
    """Select the ids of the events that were completed."""
    return select(completions.c.event_id).where(_are_these(is_sqlite), ~_UNFINISHED)


@cache
def completing(is_sqlite: bool) -> TextClause:
    """Complete events, whoever holds their leases; the first completion stays."""
    insert = _insert(is_sqlite, owner=_OWNER, completed_at_us=now_us())
    upsert = insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={
            "owner": insert.excluded.owner,
            "leased_until_us": null(),
            "completed_at_us": insert.excluded.completed_at_us,
        },
        where=_UNFINISHED,
    )
    return rendered(upsert, SQLITE if is_sqlite else POSTGRESQL)


@cache
def releasing(is_sqlite: bool) -> Delete:
    """Delete leases that are the owner's."""
    leases = (
        select(completions.c.event_id)
        .where(_are_these(is_sqlite), completions.c.owner == _OWNER, _UNFINISHED)
        .order_by(completions.c.event_id)
        .with_for_update()
    )
    return delete(completions).where(completions.c.consumer == _CONSUMER, completions.c.event_id.in_(leases))


def _insert(is_sqlite: bool, **values: ColumnElement[Any]) -> _Insert:
    event_id = _these(is_sqlite)
    # The condition always holds: without one SQLite takes ON CONFLICT for that of a join.
    # https://www.sqlite.org/lang_upsert.html#parsing_ambiguity
    rows = select(_CONSUMER, event_id, *values.values()).where(event_id.is_not(None)).order_by(event_id)
    insert: _Insert = sqlite.insert(completions) if is_sqlite else postgresql.insert(completions)
    return insert.from_select(["consumer", "event_id", *values], rows)


def _are_these(is_sqlite: bool) -> ColumnElement[bool]:
    return and_(completions.c.consumer == _CONSUMER, completions.c.event_id.in_(select(_these(is_sqlite))))


def _these(is_sqlite: bool) -> ColumnElement[str]:
    """Return a column of the ids in the parameters."""
    if is_sqlite:
        return func.json_each(bindparam("event_ids", type_=Text)).table_valued("value").c.value
    ids = bindparam("event_ids", type_=ARRAY(Text, dimensions=1))
    return func.unnest(ids).table_valued("value").render_derived().c.value
