"""Bounds on many waits of the same length, with one timer for all of them."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

#: How much later than promised a wait may end: the timer looks this often.
TICK_S = 0.1


class Deadlines:
    """Bounds each wait to `timeout_s` seconds, and not more than `TICK_S` beyond.

    Of thousands of waits a second hardly one times out: two changes of a dictionary are a tenth of what a timer costs
    that is set and cancelled each time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # In the order of their deadlines, as all waits have the same length.
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def bound(self, awaitable: Awaitable[T]) -> T:
        """Return what `awaitable` returns; cancel it and raise TimeoutError if it takes too long.

        A task can wait for one thing at a time.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        self._waiting[task] = time.monotonic() + self._timeout_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may want the task to end, too.
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            del self._waiting[task]
            self._expired.discard(task)

    def _tick(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for task, deadline_s in self._waiting.items():
            if deadline_s > now_s:
                break
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
