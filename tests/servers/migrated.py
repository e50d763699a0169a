"""Databases that have their tables already: migrating one takes ten times as long as copying it."""

import asyncio
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path

from store import Store, migrate


def copy_migrated_sqlite(path: Path) -> str:
    """Put an empty SQLite store with its tables there, and return its URL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_template(), path)
    return f"sqlite+aiosqlite:///{path}"


def migrate_now(url: str) -> None:
    """Migrate a database; whoever calls may be in an event loop, which waits."""
    thread = threading.Thread(target=lambda: asyncio.run(_migrate(url)))
    thread.start()
    thread.join()


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="tiw-migrated-")) / "store.db"
    migrate_now(f"sqlite+aiosqlite:///{path}")
    assert not path.with_name("store.db-wal").exists(), "what is in it is not in the file alone"
    return path


async def _migrate(url: str) -> None:
    async with Store(url) as store:
        await migrate(store)
