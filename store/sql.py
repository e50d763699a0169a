"""What both databases can do, but spell differently."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ClauseElement, Dialect, Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

#: Items in a list of an SQL statement, of up to three values each: PostgreSQL and SQLite take 32,766 values.
MAX_VALUES = 1000

#: For `rendered`.
POSTGRESQL: Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # the library gives it no types
SQLITE: Dialect = SQLiteDialect(paramstyle="named")

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


def rendered(statement: ClauseElement, dialect: Dialect) -> TextClause:
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
    return text(str(compiled)).bindparams(*parameters)


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Split `items` into runs of at most `size`, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def members(row: Row[Any]) -> dict[str, Any]:
    """Return a row's values by the names of their columns."""
    # Row calls it private because it keeps plain names for columns. The names are a subclass of str.
    return {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001
