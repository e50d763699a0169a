"""A store of each kind, empty and migrated, for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Store
from tests.servers.migrated import copy_migrated_sqlite


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Give the URL of a SQLite file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path}/var/tiw.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty database, of each kind in turn: for tests that take `store`, with its tables."""
    is_migrated = "store" in request.fixturenames
    if request.param == "postgresql":
        return str(request.getfixturevalue("migrated_postgres_url" if is_migrated else "postgres_url"))
    url: str = request.getfixturevalue("sqlite_url")
    return copy_migrated_sqlite(Path(url.partition(":///")[2])) if is_migrated else url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """Give an empty store with its tables, of each kind in turn."""
    async with Store(store_url) as store:
        yield store
