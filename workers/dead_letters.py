"""Move dead letters from a consumer's queue into the store, where they can be listed and replayed."""

import asyncio
from typing import Self

import structlog

from broker import ConsumerQueues, Delivery, Transport
from schemas import RecordingEvent, decode
from store import DeadLetter, Store, keep_dead_letters
from telemetry import metrics
from workers.store_watch import AWAY_ERRORS, StoreWatch

#: Moved in one transaction, and the prefetch of the queue.
_GROUP = 50

_log = structlog.get_logger()


class DeadLetterMover:
    """Consumes the dead letters of one consumer while the store is here; an async context manager.

    Insert, then ack: a letter that is delivered twice is inserted once. None is ever given up.
    """

    def __init__(self, queues: ConsumerQueues, *, transport: Transport, store: Store, store_watch: StoreWatch) -> None:
        self._consumer = queues.consumer
        self._store = store
        self._store_watch = store_watch
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._subscription = transport.subscribe(queues, self._arrived.put_nowait, prefetch=_GROUP, dead=True)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._subscription.__aenter__()
        self._task = asyncio.create_task(self._move(), name=f"dead letters of {self._consumer}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._subscription.__aexit__(*exc_info)

    async def _move(self) -> None:
        while True:
            group = [await self._arrived.get()]
            while not self._arrived.empty() and len(group) < _GROUP:
                group.append(self._arrived.get_nowait())
            letters = [_letter(self._consumer, delivery) for delivery in group]
            while True:
                await self._store_watch.wait()
                try:
                    await keep_dead_letters(self._store, letters)
                except AWAY_ERRORS:
                    self._store_watch.report_away()
                    continue
                break
            for acknowledged in [delivery.ack() for delivery in group]:
                await acknowledged
            metrics.DEAD_LETTERS_MOVED.labels(self._consumer).inc(len(letters))


def _letter(consumer: str, delivery: Delivery) -> DeadLetter:
    message = delivery.message
    event = decode(message.body, received_at_us=message.received_at_us).event
    event_type = type(event).__name__ if isinstance(event, RecordingEvent) else event.event_type
    failed_at_us = message.last_failed_at_us or message.received_at_us
    return DeadLetter(
        consumer=consumer,
        event_id=message.event_id,
        event_type=event_type,
        sdk_app_id=event.sdk_app_id,
        attempts=message.attempt,
        reason=message.reason or "unknown",
        first_failed_at_us=message.first_failed_at_us or failed_at_us,
        last_failed_at_us=failed_at_us,
        body=message.body,
        routing_key=message.routing_key,
        received_at_us=message.received_at_us,
        trace=message.trace,
    )
