"""Metrics and log lines about a consumer's deliveries, at a small cost for each."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from broker import Message
from telemetry import metrics

_LEVELS = {"ack": logging.DEBUG, "dead_letter": logging.WARNING}
_EVENTS = {
    "ack": "event_handled",
    "retry": "retry_scheduled",
    "drop": "event_dropped",
    "dead_letter": "dead_lettered",
}

_log = structlog.get_logger()


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
        self._lag_seconds.hand_over()
        self._handler_seconds.hand_over()
        if self._calls:
            self._running.inc(self._calls)
            self._calls = 0
        for outcome, count in self._outcomes.items():
            metrics.DELIVERIES.labels(self._consumer, outcome).inc(count)
        self._retries_scheduled.inc(self._outcomes["retry"])
        self._outcomes.clear()
