"""Pages of listings for people: newest first, one after the other, each in a short transaction of its own."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.store import Store

#: A listing that takes longer is given up: nobody waits so long for a page.
TIMEOUT_S: Final = 4.0

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
    async with store.reading() as connection:
        await store.dialect.begin_browsing(connection, timeout_s=TIMEOUT_S)
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
        return msgspec.json.decode(decoded, type=kind)
    except ValueError:  # msgspec's and base64's errors are
        raise ValueError("this address names no place in the listing: begin at its first page") from None


def behind(order: Sequence[ColumnElement[Any]], place: Sequence[Any] | None) -> list[ColumnElement[bool]]:
    """Return the condition that a row comes behind a place in the descending order of these columns."""
    return [] if place is None else [tuple_(*order) < tuple_(*place)]
