"""A house for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Store
from tests.servers.migrated import copy_migrated_sqlite
from tests.workers.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Store(copy_migrated_sqlite(tmp_path / "store.db")) as store:
        yield House(store=store, folder=tmp_path)
