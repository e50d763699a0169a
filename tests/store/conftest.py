"""A store of each kind, empty and migrated, for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Store, migrate


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Give the URL of a SQLite file that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path}/var/tiw.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of an empty database, of each kind in turn."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """Give an empty store with its tables, of each kind in turn."""
    async with Store(store_url) as store:
        await migrate(store)
        yield store
