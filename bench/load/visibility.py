"""When rows become visible to others.

A reader of its own asks, again and again, for the events that were sent and not seen yet, by primary key. A trigger
could note when a row is written, but that is before its transaction commits, which is what takes long; a listener is
told after the commit, but by one more message. What is seen here is really committed, and is seen late by what one
round takes, a few milliseconds at most.
"""

import asyncio
import time
from typing import Self

import asyncpg

#: Between two looks.
_PAUSE_S = 0.001


class Visibility:
    """Notes when each event was first seen in `events`; an async context manager."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url.replace("postgresql+asyncpg", "postgresql")
        self._awaited: dict[str, None] = {}
        self._looking: asyncio.Task[None] | None = None
        #: By event_id, of the monotonic clock.
        self.seen_at_s: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._url)
        self._looking = asyncio.create_task(self._look(), name="visibility")
        return self

    @property
    def server_pid(self) -> int:
        """The process of the database that looks on its behalf."""
        return int(self._connection.get_server_pid())

    async def __aexit__(self, *exc_info: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._connection.close()

    def expect(self, event_id: str) -> None:
        """Look out for an event from now on."""
        self._awaited[event_id] = None

    async def all_seen(self, *, within_s: float) -> bool:
        """Return whether all were seen in time. Raises what broke the reader."""
        deadline_s = time.monotonic() + within_s
        while self._awaited and time.monotonic() < deadline_s:
            if self._looking is not None and self._looking.done():
                self._looking.result()
            await asyncio.sleep(0.01)
        return not self._awaited

    async def _look(self) -> None:
        statement = await self._connection.prepare("SELECT event_id FROM events WHERE event_id = ANY($1::text[])")
        while True:
            awaited = list(self._awaited)
            if awaited:
                rows = await statement.fetch(awaited)
                now_s = time.monotonic()
                for row in rows:
                    self.seen_at_s[row[0]] = now_s
                    del self._awaited[row[0]]
            await asyncio.sleep(_PAUSE_S)
