"""What a SQLite file has to survive."""

import asyncio
import sys
from pathlib import Path

from store import Store, apply_events, count_events, migrate
from tests.store.classes import callback, keep

#: Another process that looks, such as a listing of the command line, and leaves.
LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("SELECT count(*) FROM events").fetchone())
connection.close()
"""


async def look(path: Path) -> int:
    """Count the events in another process."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LOOK, path, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return int(output)


async def test_a_process_that_looks_and_leaves_takes_nothing_from_one_that_writes(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite+aiosqlite:///"))
    async with Store(sqlite_url) as store:
        await migrate(store)
        # Several connections of one process: opening a later one must not let go of the file for the earlier ones.
        async with store.reading(), store.reading():
            pass
        assert await look(path) == 0
        await apply_events(store, [keep(callback("OnlineRecordStarted", TaskId="class-1"))])
        assert await count_events(store) == 1
        assert await look(path) == 1
