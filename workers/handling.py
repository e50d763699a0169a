"""One delivery, from its arrival to its outcome made durable.

What became of an event is kept before its delivery is acknowledged: a success is remembered, a retry or dead letter
is published and confirmed. Whatever dies in between, the event is delivered again.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import structlog

from broker import LEASE_WAIT_S, Delivery, Message, rung_not_shorter
from schemas import UNRECOGNIZED, Event, RecordingEvent, Unrecognized, decode
from store import Claim, Store, StoreUnavailableError, claim, complete, release
from telemetry import metrics
from workers.attempt import attempt
from workers.consumer import Consumer
from workers.context import Context
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.owner import release_leases_of_the_gone
from workers.settling import Settler
from workers.store_watch import StoreWatch

#: At this many crashes a delivery is a dead letter.
FATAL_CRASHES = 6

_EPOCH = datetime.fromtimestamp(0, UTC)

_log = structlog.get_logger()


class Handling:
    """Handles the deliveries of one consumer, each on its own. `owner` is this process's name in the leases."""

    def __init__(
        self,
        consumer: Consumer,
        settler: Settler,
        *,
        store: Store,
        store_watch: StoreWatch,
        retry_delays_s: tuple[float, ...],
        owner: str,
        lease_s: float,
    ) -> None:
        self._consumer = consumer
        self._settler = settler
        self._store = store
        self._store_watch = store_watch
        self._lease_wait_s = rung_not_shorter(retry_delays_s, LEASE_WAIT_S)
        self._owner = owner
        self._lease_s = lease_s
        self._running_ids: set[str] = set()

    async def handle(self, delivery: Delivery) -> None:
        """Bring a delivery to its end.

        Raises `StoreUnavailableError` before the handler had an effect, and `CancelledError`, with the delivery
        unsettled: it can be handed back.
        """
        message = delivery.message
        event = self._event(message)
        if event is None:
            await self._settler.pass_on(delivery)
        elif not isinstance(event, self._consumer.event_types):
            # Bound to it once, before its annotation was changed.
            await self._settler.ack(delivery, "unwanted", event_type=message.routing_key)
        elif message.event_id in self._running_ids:
            await self._settler.wait_for_lease(delivery, self._lease_wait_s)
        else:
            self._running_ids.add(message.event_id)
            try:
                await self._handle_once(delivery, event)
            finally:
                self._running_ids.discard(message.event_id)

    async def _handle_once(self, delivery: Delivery, event: Event) -> None:
        message = delivery.message
        claimed = await self._claim(message)
        if claimed is Claim.LEASED and await release_leases_of_the_gone(self._store):
            claimed = await self._claim(message)
        if claimed is Claim.COMPLETED:
            await self._settler.ack(delivery, "duplicate")
        elif claimed is Claim.LEASED:
            await self._settler.wait_for_lease(delivery, self._lease_wait_s)
        elif delivery.crashes >= FATAL_CRASHES:
            await self._release(message)
            await self._settler.bury(delivery, "worker crashed")
        else:
            name = self._consumer.name
            metrics.LAG_SECONDS.labels(name).observe(max(0.0, time.time() - message.received_at_us / 1e6))
            with metrics.RUNNING.labels(name).track_inprogress(), metrics.HANDLER_SECONDS.labels(name).time():
                outcome = await self._attempt(message, event)
            await self._conclude(delivery, outcome)

    async def _attempt(self, message: Message, event: Event) -> Outcome:
        context = Context(
            consumer=self._consumer.name,
            event_id=message.event_id,
            attempt=message.attempt,
            received_at=_EPOCH + timedelta(microseconds=message.received_at_us),
            body=message.body,
            log=_log.bind(
                consumer=self._consumer.name,
                event_id=message.event_id,
                attempt=message.attempt,
                trace=message.trace or None,
            ),
            store=self._store,
        )
        try:
            return await attempt(self._consumer, event, context)
        except (StoreUnavailableError, asyncio.CancelledError):
            await self._release(message)
            raise

    async def _conclude(self, delivery: Delivery, outcome: Outcome) -> None:
        match outcome:
            case Ack():
                await self._remember(delivery.message)
                await self._settler.ack(delivery, "ack")
            case Drop():
                await self._remember(delivery.message)
                await self._settler.ack(delivery, "drop", reason=outcome.reason)
            case DeadLetter():
                await self._release(delivery.message)
                await self._settler.bury(delivery, outcome.reason)
            case Retry():
                await self._release(delivery.message)
                await self._settler.retry(delivery, outcome)

    def _event(self, message: Message) -> Event | None:
        """Decode; None if an ingest node recognized what this worker does not."""
        event = decode(message.body, received_at_us=message.received_at_us).event
        if message.routing_key == UNRECOGNIZED and isinstance(event, RecordingEvent):
            return Unrecognized(
                reason="not recognized by the ingest node that took it in",
                event_type=type(event).__name__,
                timestamp=event.timestamp,
                sdk_app_id=event.sdk_app_id,
            )
        return None if isinstance(event, Unrecognized) and message.routing_key != UNRECOGNIZED else event

    async def _claim(self, message: Message) -> Claim:
        if not self._consumer.remember:
            return Claim.CLAIMED
        claims = await claim(
            self._store,
            consumer=self._consumer.name,
            event_ids=[message.event_id],
            owner=self._owner,
            lease_s=self._lease_s,
        )
        return claims[message.event_id]

    async def _remember(self, message: Message) -> None:
        """Remember the completion, however long the store is away: the handler has done its work."""
        while self._consumer.remember:
            try:
                await complete(
                    self._store, consumer=self._consumer.name, event_ids=[message.event_id], owner=self._owner
                )
            except StoreUnavailableError:
                self._store_watch.report_away()
                await self._store_watch.wait()
                continue
            return

    async def _release(self, message: Message) -> None:
        """Let go of the lease; if the store is away it runs out by itself."""
        if not self._consumer.remember:
            return
        try:
            await release(self._store, consumer=self._consumer.name, event_ids=[message.event_id], owner=self._owner)
        except StoreUnavailableError:
            self._store_watch.report_away()
