"""Pages of listings for people: the latest first, one after the other, each in a short transaction of its own.

A page costs as little behind a million rows as at the beginning, and as little where nothing is found: rows are walked
in the order of an index, from the place where the page before ended, and no further than `Walk` says.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Row, Select, func, select, tuple_

from store.connection import AsyncConnection
from store.store import Store, members

#: A listing that takes longer is given up: nobody waits so long for a page.
TIMEOUT_S: Final = 4.0

#: Entries of an index that are looked at for one page.
ENTRIES_LOOKED_AT: Final = 200_000

#: Rows that are looked at themselves for one page, as what is asked of them is in no index.
ROWS_LOOKED_AT: Final = 20_000

#: So many are looked at first: mostly they have a page full.
_AT_FIRST: Final = 2_000

#: What a column of numbers holds: a larger one cannot be compared with it.
BigInt: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

T = TypeVar("T")


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """Some rows, and how to get those behind them: `next`, which is None behind the last.

    `searched_until_us` is there where the search was paused before the page was full: nothing newer is left out, and
    `next` goes on. Then there may be no row at all.
    """

    rows: list[T]
    next: str | None = None
    searched_until_us: int | None = None


@asynccontextmanager
async def browsing(store: Store) -> AsyncIterator[AsyncConnection]:
    """Give a connection as `Store.reading` does, whose statements are made for pages and given up after `TIMEOUT_S`."""
    async with store.reading() as connection, store.dialect.browsing(connection, timeout_s=TIMEOUT_S):
        yield connection


def cursor(place: Sequence[int | str]) -> str:
    """Return the place of a row in the order of a listing as text for an address."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(text: str | None, kind: Any) -> Any:
    """Return the place that a cursor names, a tuple of the given kind; None without a cursor.

    Raises `ValueError` for what is no cursor of this listing.
    """
    if text is None:
        return None
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(decoded, type=kind)
    except ValueError:  # msgspec's and base64's errors are
        place = None
    if place is None or any(isinstance(part, str) and "\0" in part for part in place):
        raise ValueError("this address names no place in the listing: begin at its first page")
    return place


def check_numbers(*numbers: int | None) -> None:
    """Raise `ValueError` for a number that no column holds."""
    if any(number is not None and not -(2**63) <= number < 2**63 for number in numbers):
        raise ValueError("this number is larger than any that is kept: correct it")


class Count(Struct, frozen=True, kw_only=True):
    """How many there are, or with `is_at_least` that there are more than these."""

    count: int = 0
    is_at_least: bool = False


async def count(connection: AsyncConnection, rows: Select[Any], *, up_to: int) -> Count:
    """Count rows, no further than `up_to`."""
    some = rows.limit(up_to + 1).subquery()
    counted = (await connection.execute(select(func.count()).select_from(some))).scalar_one()
    return Count(count=min(counted, up_to), is_at_least=counted > up_to)


class Walk(Struct, kw_only=True):
    """Which rows are asked for: in the descending order of the columns `order`, behind the place `after`.

    An index has these columns first. `within` are conditions on the first of them, or those that choose this index;
    `indexed` can be seen in its entries; `looked_up` only in the rows, of which at most `rows_looked_at` are looked at.
    """

    order: tuple[ColumnElement[Any], ...]
    after: tuple[Any, ...] | None = None
    within: list[ColumnElement[bool]] = msgspec.field(default_factory=list)
    indexed: list[ColumnElement[bool]] = msgspec.field(default_factory=list)
    looked_up: list[ColumnElement[bool]] = msgspec.field(default_factory=list)
    rows_looked_at: int = ROWS_LOOKED_AT


class Walked(Struct, frozen=True, kw_only=True):
    """Rows that were found, and the place to go on behind, None if these were the last.

    `is_paused`: the search ended there because enough was looked at.
    """

    rows: Sequence[Row[Any]]
    place: tuple[Any, ...] | None = None
    is_paused: bool = False

    def page(self, rows: list[T]) -> Page[T]:
        """Return the page that has these rows."""
        return Page(
            rows=rows,
            next=None if self.place is None else cursor(self.place),
            searched_until_us=self.place[0] if self.is_paused and self.place is not None else None,
        )


async def walk(connection: AsyncConnection, way: Walk, shown: Select[Any] | None = None, *, limit: int) -> Walked:
    """Return at most `limit` rows of `shown`, which has the columns of the order; by default those alone."""
    end = await _end(connection, way, entries=_AT_FIRST, rows=_AT_FIRST)
    rows = await _read(connection, way, shown, end=end, limit=limit)
    if len(rows) < limit and end is not None:
        end = await _end(connection, way, entries=ENTRIES_LOOKED_AT, rows=way.rows_looked_at)
        rows = await _read(connection, way, shown, end=end, limit=limit)
    if len(rows) < limit:
        return Walked(rows=rows, place=end, is_paused=end is not None)
    return found(way.order, rows, limit=limit, is_more=end is not None)


def found(
    order: Sequence[ColumnElement[Any]], rows: Sequence[Row[Any]], *, limit: int, is_more: bool = False
) -> Walked:
    """Return what was found where one row more than `limit` was asked for; `is_more`: there are more anyway."""
    if not is_more and len(rows) <= limit:
        return Walked(rows=rows)
    values = members(rows[limit - 1])
    return Walked(rows=rows[:limit], place=tuple(values[column.name] for column in order))


async def _end(connection: AsyncConnection, way: Walk, *, entries: int, rows: int) -> tuple[Any, ...] | None:
    """Return the last place to look at, None if it is the end of all."""
    end: tuple[Any, ...] | None = None
    if way.indexed:
        end = await _place_at(connection, _rows(way, []), entries)
    if way.looked_up:
        end = await _place_at(connection, _rows(way, way.indexed, end=end), rows) or end
    return end


async def _place_at(connection: AsyncConnection, rows: Select[Any], number: int) -> tuple[Any, ...] | None:
    row = (await connection.execute(rows.offset(number - 1).limit(1))).one_or_none()
    return None if row is None else tuple(row)


async def _read(
    connection: AsyncConnection, way: Walk, shown: Select[Any] | None, *, end: tuple[Any, ...] | None, limit: int
) -> Sequence[Row[Any]]:
    query = _rows(way, [*way.indexed, *way.looked_up], end=end, shown=shown)
    return (await connection.execute(query.limit(limit + 1))).all()


def _rows(
    way: Walk,
    conditions: Sequence[ColumnElement[bool]],
    *,
    end: tuple[Any, ...] | None = None,
    shown: Select[Any] | None = None,
) -> Select[Any]:
    query = (select(*way.order) if shown is None else shown).where(*way.within, *conditions)
    query = query.where(*behind(way.order, way.after)).order_by(*newest_first(way.order))
    return query if end is None else query.where(tuple_(*way.order) >= tuple_(*end))


def newest_first(order: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    """Return the descending order of these columns."""
    return [column.desc() for column in order]


def behind(order: Sequence[ColumnElement[Any]], place: Sequence[Any] | None) -> list[ColumnElement[bool]]:
    """Return the condition that a row comes behind a place in the descending order of these columns."""
    return [] if place is None else [tuple_(*order) < tuple_(*place)]


async def different(connection: AsyncConnection, column: ColumnElement[Any], *where: ColumnElement[bool]) -> list[Any]:
    """Return the different values of a column that an index begins with, from one to the next: few, of many rows."""
    smallest = select(func.min(column).label("value")).where(*where)
    values: list[Any] = []
    value = (await connection.execute(smallest)).scalar_one()
    while value is not None:
        values.append(value)
        value = (await connection.execute(smallest.where(column > value))).scalar_one()
    return values
