"""What all processes together do at most so often: one bucket per name, in the database.

The generic cell rate algorithm, in one statement: a row holds the theoretical arrival time of the next turn, by the
database's clock. Who takes one moves it on by the interval; a burst is how far it may be ahead of the clock before
anybody waits.
https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
"""

from functools import cache
from typing import Final

from sqlalchemy import BigInteger, Text, TextClause, and_, bindparam, case, or_

from store.connection import AsyncConnection
from store.statements import Dialect
from store.store import Store, now_us
from store.tables import rate_limits

#: A database's clock that is set back by more than this makes turns begin anew.
CLOCK_STEP_S: Final = 600.0

_EVERY_US: Final = bindparam("every_us", type_=BigInteger)


async def reserve(store: Store, name: str, *, every_s: float, burst: int, at_most_wait_s: float) -> float | None:
    """Reserve one of the turns that `name` has: one every `every_s` seconds, of which `burst` may be taken at once.

    Returns how many seconds to wait before taking it, 0 for none; or None if that would be more than `at_most_wait_s`,
    and then none is reserved. All processes with one database share the turns of a name; they give the same limits for
    it. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    every_us = _us(every_s)
    burst_us = every_us * (max(1, burst) - 1)
    given = {"of_name": name, "every_us": every_us, "ahead_us": burst_us + _us(at_most_wait_s)}

    async def operation(connection: AsyncConnection) -> int | None:
        ahead_us: int | None = (await connection.execute(_reserving(store.dialect), given)).scalar_one_or_none()
        return ahead_us

    ahead_us = await store.write(operation)
    return None if ahead_us is None else max(0, ahead_us - burst_us) / 1_000_000


@cache
def _reserving(dialect: Dialect) -> TextClause:
    """Take a turn, unless it is more than `ahead_us` away, and return how far it is."""
    next_at_us, ahead_us = rate_limits.c.next_at_us, bindparam("ahead_us", type_=BigInteger)
    # Later than anybody reserves: the clock was set back, and whoever believed the row would wait for it to come round.
    is_believable = next_at_us <= now_us() + ahead_us + _EVERY_US + _us(CLOCK_STEP_S)
    begins_at_us = case((and_(next_at_us > now_us(), is_believable), next_at_us), else_=now_us())
    insert = dialect.insert(rate_limits).values(name=bindparam("of_name", type_=Text), next_at_us=now_us() + _EVERY_US)
    upsert = insert.on_conflict_do_update(
        index_elements=[rate_limits.c.name],
        set_={"next_at_us": begins_at_us + _EVERY_US},
        where=or_(next_at_us <= now_us() + ahead_us, ~is_believable),
    )
    return dialect.render(upsert.returning(rate_limits.c.next_at_us - _EVERY_US - now_us()))


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
