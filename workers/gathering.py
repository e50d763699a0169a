"""Gathering: one operation at a time, over everything that came while the last one ran.

Groups form by themselves: under load they are large, and a single item never waits for another.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

import structlog

Item = TypeVar("Item")

_log = structlog.get_logger()


class Gathering(Generic[Item]):
    """Hands all items that wait, at most `at_most`, to `operate` at once; an async context manager.

    `operate` sees to its own errors: one that it raises is logged, and its items are forgotten. Leaving cancels it.
    """

    def __init__(self, operate: Callable[[list[Item]], Awaitable[None]], *, name: str, at_most: int = 1000) -> None:
        self._operate = operate
        self._name = name
        self._at_most = at_most
        self._items: list[Item] = []
        self._is_busy = False
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being done."""
        return not self._is_busy and not self._items

    def add(self, item: Item) -> None:
        """Let `item` be part of the next group."""
        self._items.append(item)
        if self._wake is not None:
            wake, self._wake = self._wake, None
            if not wake.done():
                wake.set_result(None)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self._name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            if not self._items:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
            group, self._items = self._items[: self._at_most], self._items[self._at_most :]
            self._is_busy = True
            try:
                await self._operate(group)
            except Exception:  # noqa: BLE001 - the next groups must not suffer
                _log.exception("runner_failed", task=self._name)
            self._is_busy = False
