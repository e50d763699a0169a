"""Whether the database has the tables that this version works with.

Migrations are numbered; the highest number that this version knows is its level. A migration says from which
level on code can work with its result: an additive one leaves that as it was, so that old workers go on beside it
while new ones are rolled out.
"""

import asyncio
import time
from typing import Final

import structlog
from sqlalchemy import select

from store.connecting import Store
from store.errors import SchemaMismatchError, StoreUnavailableError
from store.tables import schema_level

#: The number of the newest migration of this version.
LEVEL: Final = 1

REMINDER_S: Final = 30.0

_log = structlog.get_logger()


async def check_schema(store: Store) -> None:
    """Return if the tables are those of this version, or newer ones that it can still use.

    Raises `SchemaMismatchError` (missing, older, too new) and `StoreUnavailableError`.
    """
    async with store.reading() as connection:
        row = (await connection.execute(select(schema_level.c.level, schema_level.c.usable_since))).one_or_none()
    if row is None:
        raise SchemaMismatchError(f"{store.safe_url} has no complete tables: run `tiw migrate`")
    judge(store, level=row.level, usable_since=row.usable_since)
    if row.level < LEVEL:
        raise SchemaMismatchError(
            f"the tables in {store.safe_url} have level {row.level}, this version needs {LEVEL}: run `tiw migrate`"
        )


def judge(store: Store, *, level: int, usable_since: int) -> None:
    """Raise `SchemaMismatchError` if tables of `level` are too new for this version."""
    if usable_since > LEVEL:
        raise SchemaMismatchError(
            f"the tables in {store.safe_url} have level {level} and can be used by versions of level {usable_since} "
            f"or later, this one has {LEVEL}: run the newer version"
        )


async def wait_for_schema(store: Store, *, poll_s: float = 1.0) -> None:
    """Return once `check_schema` does, however long the database is away or not migrated.

    Says so in the log at first and every half minute.
    """
    spoken_at: float | None = None
    while True:
        try:
            await check_schema(store)
        except (SchemaMismatchError, StoreUnavailableError) as error:
            if spoken_at is None or time.monotonic() - spoken_at >= REMINDER_S:
                spoken_at = time.monotonic()
                await _log.awarning("schema_awaited", reason=str(error))
            await asyncio.sleep(poll_s)
        else:
            return
