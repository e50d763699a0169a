"""Gathering: one operation at a time, over everything that came while the last one ran.

Groups form by themselves: under load they are large, and a single item never waits for another.

Metrics and log lines about a consumer's deliveries, at a small cost for each.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Self, TypeVar

import structlog

from broker import Message
from telemetry import metrics

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


_LEVELS = {"ack": logging.DEBUG, "dead_letter": logging.WARNING}
_EVENTS = {
    "ack": "event_handled",
    "retry": "retry_scheduled",
    "drop": "event_dropped",
    "dead_letter": "dead_lettered",
}


class Bookkeeping:
    """Keeps the books of one consumer.

    What happens in one turn of the event loop is gathered in plain numbers, and becomes metrics in the next.
    """

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._lag_seconds = metrics.LAG_SECONDS.labels(consumer)
        self._handler_seconds = metrics.HANDLER_SECONDS.labels(consumer)
        self._running = metrics.RUNNING.labels(consumer)
        self._retries_scheduled = metrics.RETRIES_SCHEDULED.labels(consumer)
        self._calls = 0
        self._outcomes: Counter[str] = Counter()
        self._is_gathering = False
        self._is_debugging = bool(_log.is_enabled_for(logging.DEBUG))

    def begun(self, messages: Sequence[Message]) -> None:
        """Note that a call of the handler begins, for these messages."""
        self._calls += 1
        now_us = time.time_ns() // 1000
        for message in messages:
            lag_us = now_us - message.received_at_us
            self._lag_seconds.observe(lag_us / 1e6 if lag_us > 0 else 0.0)
        self._gather()

    def ended(self, took_s: float) -> None:
        """Note that a call of the handler has ended."""
        self._calls -= 1
        self._handler_seconds.observe(took_s)
        self._gather()

    def settled(self, message: Message, outcome: str, **details: float | str) -> None:
        """Note that a delivery is settled; `outcome` says in a word what became of it."""
        self._outcomes[outcome] += 1
        self._gather()
        level = _LEVELS.get(outcome, logging.INFO)
        if level > logging.DEBUG or self._is_debugging:
            _log.log(
                level,
                _EVENTS.get(outcome, f"delivery_{outcome}"),
                consumer=self._consumer,
                event_id=message.event_id,
                attempt=message.attempt,
                **details,
            )

    def _gather(self) -> None:
        if not self._is_gathering:
            self._is_gathering = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._is_gathering = False
        self._lag_seconds.flush()
        self._handler_seconds.flush()
        if self._calls:
            self._running.inc(self._calls)
            self._calls = 0
        for outcome, count in self._outcomes.items():
            metrics.DELIVERIES.labels(self._consumer, outcome).inc(count)
        self._retries_scheduled.inc(self._outcomes["retry"])
        self._outcomes.clear()
