"""Make an outcome durable, then acknowledge: never the other way round."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import structs

from broker import Delivery, Message, NotPublishedError, Transport, rung_for_retry, rung_not_shorter
from schemas import UNRECOGNIZED
from telemetry import metrics
from workers.consumer import Consumer
from workers.outcomes import Retry

#: Between two tries to publish an outcome that the broker did not confirm.
_PUBLISH_AGAIN_S = 0.5

_LOGGED = {
    "ack": (logging.DEBUG, "event_handled"),
    "retry": (logging.INFO, "retry_scheduled"),
    "drop": (logging.INFO, "event_dropped"),
    "dead_letter": (logging.WARNING, "dead_lettered"),
}

_log = structlog.get_logger()


class Settler:
    """Settles the deliveries of one consumer. Every method returns once the delivery is settled.

    Where the broker does not confirm, publishing is tried again until it does: the outcome is known and the delivery
    cannot be let go of before it is kept. Only `hand_back` tries once: an unsettled delivery returns by itself.
    """

    def __init__(self, consumer: Consumer, transport: Transport, retry_delays_s: tuple[float, ...]) -> None:
        self._consumer = consumer
        self._transport = transport
        self._retry_delays_s = retry_delays_s

    async def ack(self, delivery: Delivery, outcome: str, **details: str) -> None:
        """Acknowledge an event that needs nothing more; `outcome` says why in a word."""
        await delivery.ack()
        self._count(delivery, outcome, **details)

    async def retry(self, delivery: Delivery, outcome: Retry) -> None:
        """Let the event wait for its next attempt, or bury it if this was its last."""
        message = delivery.message
        reason = outcome.reason or "the handler asked for another attempt"
        if message.attempt >= self._consumer.attempts:
            await self.bury(delivery, reason)
            return
        if outcome.after_s is None:
            delay_s = rung_for_retry(self._retry_delays_s, message.attempt)
        else:
            delay_s = rung_not_shorter(self._retry_delays_s, outcome.after_s)
        again = structs.replace(_failed(message, reason), attempt=message.attempt + 1, crashes=0)
        await self._publish(lambda: self._transport.retry(self._consumer.name, again, delay_s=delay_s))
        await delivery.ack()
        metrics.RETRIES_SCHEDULED.labels(self._consumer.name).inc()
        self._count(delivery, "retry", delay_s=delay_s, reason=reason)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Make the event a dead letter."""
        letter = structs.replace(_failed(delivery.message, reason), crashes=0)
        await self._publish(lambda: self._transport.bury(self._consumer.name, letter))
        await delivery.ack()
        self._count(delivery, "dead_letter", reason=reason)

    async def wait_for_lease(self, delivery: Delivery, delay_s: float) -> None:
        """Look again later: somebody else handles the event, or died with it. It counts as no attempt."""
        again = structs.replace(delivery.message, crashes=delivery.crashes)
        await self._publish(lambda: self._transport.retry(self._consumer.name, again, delay_s=delay_s))
        await delivery.ack()
        self._count(delivery, "leased")

    async def pass_on(self, delivery: Delivery) -> None:
        """Keep as unrecognized what a newer ingest node understood and this worker does not."""
        stranger = structs.replace(delivery.message, routing_key=UNRECOGNIZED, attempt=1, crashes=0)
        await self._publish(lambda: self._transport.publish(stranger))
        await delivery.ack()
        self._count(delivery, "passed_on")

    async def hand_back(self, delivery: Delivery) -> None:
        """Put the event back into the queue as it was. A return by the broker would count as a crash."""
        same = structs.replace(delivery.message, crashes=delivery.crashes)
        try:
            await self._transport.send(self._consumer.name, same)
        except NotPublishedError:
            return  # still unsettled: the broker delivers it again
        await delivery.ack()

    async def _publish(self, publish: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await publish()
            except NotPublishedError as error:
                _log.warning("outcome_not_published", consumer=self._consumer.name, error=str(error))
                await asyncio.sleep(_PUBLISH_AGAIN_S)
                await self._transport.wait_ready()
                continue
            return

    def _count(self, delivery: Delivery, outcome: str, **details: float | str) -> None:
        message = delivery.message
        metrics.DELIVERIES.labels(self._consumer.name, outcome).inc()
        level, event = _LOGGED.get(outcome, (logging.INFO, f"delivery_{outcome}"))
        _log.log(
            level,
            event,
            consumer=self._consumer.name,
            event_id=message.event_id,
            attempt=message.attempt,
            **details,
        )


def _failed(message: Message, reason: str) -> Message:
    now_us = time.time_ns() // 1000
    return structs.replace(
        message,
        first_failed_at_us=message.first_failed_at_us or now_us,
        last_failed_at_us=now_us,
        reason=reason,
    )
