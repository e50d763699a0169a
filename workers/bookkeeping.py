"""Metrics and log lines about a consumer's deliveries, at a small cost for each."""

import logging
import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter

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
    """Keeps the books of one consumer; what needs looking up is looked up once."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._lag_seconds = metrics.LAG_SECONDS.labels(consumer)
        self._handler_seconds = metrics.HANDLER_SECONDS.labels(consumer)
        self._running = metrics.RUNNING.labels(consumer)
        self._retries = metrics.RETRIES_SCHEDULED.labels(consumer)
        self._outcomes: dict[str, Counter] = {}
        self._is_debugging = bool(_log.is_enabled_for(logging.DEBUG))

    def begun(self, messages: Sequence[Message]) -> None:
        """Note that a call of the handler begins, for these messages."""
        self._running.inc()
        now_us = time.time_ns() / 1000
        for message in messages:
            self._lag_seconds.observe(max(0.0, (now_us - message.received_at_us) / 1e6))

    def ended(self, took_s: float) -> None:
        """Note that a call of the handler has ended."""
        self._running.dec()
        self._handler_seconds.observe(took_s)

    def settled(self, message: Message, outcome: str, **details: float | str) -> None:
        """Note that a delivery is settled; `outcome` says in a word what became of it."""
        counter = self._outcomes.get(outcome)
        if counter is None:
            counter = self._outcomes[outcome] = metrics.DELIVERIES.labels(self._consumer, outcome)
        counter.inc()
        if outcome == "retry":
            self._retries.inc()
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
