"""The drivers: how each database is connected to, and what its errors mean.

Only the one that a store uses is imported, with what its database does its own way: the other would be in memory for
ever, for nothing.
"""

from sqlalchemy import URL

from store.drivers.driver import WRITING, Driver, text_of
from store.errors import StoreError


def driver_for(url: URL) -> Driver:
    """Return the driver for `sqlite+aiosqlite` or `postgresql+asyncpg`. Raises `StoreError` for another kind of URL."""
    if url.drivername == "sqlite+aiosqlite" and url.database and url.database != ":memory:":
        from store.drivers import sqlite  # noqa: PLC0415 - see above

        return sqlite
    if url.drivername == "postgresql+asyncpg":
        from store.drivers import postgresql  # noqa: PLC0415 - see above

        return postgresql
    raise StoreError(
        f"{url.drivername!r} is not a database that the store can use: "
        "set postgresql+asyncpg://USER:PASSWORD@HOST/NAME or sqlite+aiosqlite:///PATH"
    )


__all__ = ["WRITING", "Driver", "driver_for", "text_of"]
