"""When the sender itself stood still: its own delays are not those of the pipeline."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Self

from chaos.evidence.clock import now_us

_EVERY_US = 50_000

#: Longer than any try.
_REMEMBERED_US = 60_000_000


class Stalls:
    """Watches its event loop; an async context manager."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self._due_us = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._due_us = now_us()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def between(self, began_us: int, ended_us: int) -> int:
        """Return for how many microseconds the loop stood still between two moments of which the second is now."""
        overlaps = [
            (max(began_us, start), min(ended_us, end)) for start, end in [*self._seen, (self._due_us, ended_us)]
        ]
        return sum(end - start for start, end in overlaps if end - start > _EVERY_US)

    async def _watch(self) -> None:
        while True:
            self._due_us = now_us() + _EVERY_US
            await asyncio.sleep(_EVERY_US / 1_000_000)
            woken_us = now_us()
            if woken_us - self._due_us > _EVERY_US:
                self._seen.append((self._due_us, woken_us))
            while self._seen and self._seen[0][1] < woken_us - _REMEMBERED_US:
                self._seen.popleft()
