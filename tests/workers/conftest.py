"""A house for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store import Store, migrate
from tests.workers.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        await migrate(store)
        yield House(store=store, folder=tmp_path)
