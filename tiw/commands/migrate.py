"""`tiw migrate`."""

import argparse
import asyncio

import structlog

from store import Store, StoreUnavailableError
from store import migrate as migrate_store
from telemetry import configure_logging
from tiw.opening import open_store
from tiw.settings import Settings

_AGAIN_S = 1.0

#: A database that starts together with us has this long.
PATIENCE_S = 120.0

_log = structlog.get_logger()


async def migrate(settings: Settings, args: argparse.Namespace) -> int:
    """Bring the schema up to date, waiting a while for a database that is only just starting."""
    del args
    configure_logging(settings.log_format)
    async with open_store(settings, may_be_new=True) as store:
        if store.is_local:
            # A file that cannot be used now will not be while nobody mends it.
            await migrate_store(store)
        else:
            await _migrate_patiently(store)
    _log.info("schema_current", database=store.safe_url)
    return 0


async def _migrate_patiently(store: Store) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await migrate_when_there(store)
    except TimeoutError:
        # Once more, for its own words on what is wrong.
        await migrate_store(store)


async def migrate_when_there(store: Store) -> None:
    """Migrate; try again for as long as the database does not answer, and say so once. Raises `SchemaMismatchError`."""
    is_told = False
    while True:
        try:
            await migrate_store(store)
        except StoreUnavailableError as error:
            if not is_told:
                _log.warning("database_awaited", database=store.safe_url, error=str(error))
                is_told = True
            await asyncio.sleep(_AGAIN_S)
            continue
        return
