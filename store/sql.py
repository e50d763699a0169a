"""What both databases can do, but spell differently."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Row, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import bindparam
from sqlalchemy.sql.functions import FunctionElement

#: Items in a list of an SQL statement, of up to three values each: PostgreSQL and SQLite take 32,766 values.
MAX_VALUES = 1000

Item = TypeVar("Item")


class now_us(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, in microseconds since the Unix epoch: one clock for all workers."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "postgresql")
def _on_postgresql(*_: object, **__: Any) -> str:
    # Not now(): that is when the transaction began.
    return "(extract(epoch from clock_timestamp()) * 1000000)::bigint"


@compiles(now_us, "sqlite")
def _on_sqlite(*_: object, **__: Any) -> str:
    # unixepoch('subsec') would do, from SQLite 3.42 on.
    return "cast((julianday('now') - 2440587.5) * 86400000000 as integer)"


def each_of(texts: Collection[str], *, is_sqlite: bool) -> ColumnElement[str]:
    """Return a column of these texts, to select from: one parameter and one statement, however many there are."""
    if is_sqlite:
        return func.json_each(msgspec.json.encode(list(texts)).decode()).table_valued("value").c.value
    values = bindparam("texts", list(texts), type_=ARRAY(Text), unique=True)
    return func.unnest(values).table_valued("value").render_derived().c.value


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Split `items` into runs of at most `size`, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def members(row: Row[Any]) -> dict[str, Any]:
    """Return a row's values by the names of their columns."""
    # Row calls it private because it keeps plain names for columns. The names are a subclass of str.
    return {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001
