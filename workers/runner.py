"""From deliveries to outcomes: the runner of one consumer.

A delivery is handled, and what became of it is made durable before it is acknowledged: a success is remembered, a
retry or dead letter is published and confirmed. Whatever dies in between, the event is delivered again.

Deliveries that came back unsettled `SUSPECT_CRASHES` times may be what kills the worker, and they drag along
whatever else is unsettled in the same process. So they are run with nothing beside them, one at a time, and a fresh
subscription starts with one delivery at a time until it has seen a harmless one.
"""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import structlog

from broker import LEASE_WAIT_S, Delivery, Message, Subscription, Transport, rung_not_shorter
from schemas import UNRECOGNIZED, Event, RecordingEvent, Unrecognized, decode
from store import Claim, Store, StoreUnavailableError, claim, complete, release
from telemetry import metrics
from workers.attempt import attempt
from workers.consumer import Consumer
from workers.context import Context
from workers.outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from workers.settling import Settler
from workers.store_watch import StoreWatch

#: From this many crashes on a delivery runs alone.
SUSPECT_CRASHES = 3

#: At this many crashes a delivery is a dead letter.
FATAL_CRASHES = 6

_EPOCH = datetime.fromtimestamp(0, UTC)

log = structlog.get_logger()


class Runner:
    """Runs one consumer on its queue until it is drained; an async context manager.

    At most `consumer.concurrency` handlers at once, twice as many deliveries here. `owner` is this process's name
    in the leases. While the store is away, a consumer that needs it takes nothing and hands back what it has.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        transport: Transport,
        store: Store,
        store_watch: StoreWatch,
        retry_delays_s: tuple[float, ...],
        owner: str,
        lease_s: float,
    ) -> None:
        self.consumer = consumer
        self._transport = transport
        self._store = store
        self._store_watch = store_watch
        self._settler = Settler(consumer, transport, retry_delays_s)
        self._lease_wait_s = rung_not_shorter(retry_delays_s, LEASE_WAIT_S)
        self._owner = owner
        self._lease_s = lease_s
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(consumer.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._needs_store = consumer.remember
        self._running_ids: set[str] = set()
        self._probing = True
        self._draining = False
        self._is_dispatcher_idle = True
        self._changed = asyncio.Event()
        self._subscription: Subscription = transport.subscribe(consumer.queues, self._on_delivery, prefetch=1)
        self._dispatcher: asyncio.Task[None] | None = None

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer right now."""
        return self._subscription.is_consuming

    async def __aenter__(self) -> Self:
        await self._subscription.__aenter__()
        self._dispatcher = asyncio.create_task(self._dispatch(), name=f"dispatch {self.consumer.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.drain(grace_s=0)
        await self._subscription.__aexit__(kind, error, traceback)

    async def drain(self, *, grace_s: float) -> None:
        """Take nothing more, finish what is here within `grace_s`, hand back the rest without counting it."""
        if self._draining:
            return
        self._draining = True
        await self._subscription.set_prefetch(0)
        if self._dispatcher is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await self._emptied()
            except TimeoutError:
                log.warning("drain_cut_short", consumer=self.consumer.name, running=len(self._running_ids))
            self._dispatcher.cancel()
            await asyncio.wait({self._dispatcher})
        interrupted = list(self._tasks)
        for task in interrupted:
            task.cancel()
        if interrupted:
            await asyncio.wait(interrupted)
        while self._waiting:
            await self._settler.hand_back(self._waiting.popleft())

    async def _emptied(self) -> None:
        while not self._is_idle():
            self._changed.clear()
            await self._changed.wait()

    def _is_idle(self) -> bool:
        return self._is_dispatcher_idle and not self._waiting and not self._tasks

    def _on_delivery(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()

    async def _dispatch(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                self._is_dispatcher_idle = True
                self._changed.set()
                await self._arrived.wait()
            self._is_dispatcher_idle = False
            if self._needs_store and not self._store_watch.is_here and not self._draining:
                await self._sit_out()
                continue
            delivery = self._waiting[0]
            if delivery.crashes >= SUSPECT_CRASHES:
                await self._run_alone()
                continue
            if self._probing and not self._draining:
                self._probing = False
                await self._subscription.set_prefetch(2 * self.consumer.concurrency)
            await self._slots.acquire()
            self._start(self._waiting.popleft())

    async def _run_alone(self) -> None:
        """Run the suspect at the head with nothing beside it; put other suspects back into the queue."""
        if not self._probing:
            self._probing = True
            await self._subscription.set_prefetch(0)
        suspect = self._waiting.popleft()
        others = [delivery for delivery in self._waiting if delivery.crashes < SUSPECT_CRASHES]
        suspects = [delivery for delivery in self._waiting if delivery.crashes >= SUSPECT_CRASHES]
        self._waiting.clear()
        for delivery in suspects:
            await self._settler.hand_back(delivery)
        for delivery in others:
            await self._slots.acquire()
            self._start(delivery)
        await self._finished()
        await self._slots.acquire()
        self._start(suspect)
        await self._finished()
        if not self._draining:
            await self._subscription.set_prefetch(1)

    async def _sit_out(self) -> None:
        """Hand back what is here and wait until the store answers again.

        Not held on to: a delivery that stays unsettled for 30 minutes costs the channel, and counts as a crash.
        """
        log.warning("consumer_paused", consumer=self.consumer.name, reason="the store does not answer")
        await self._subscription.set_prefetch(0)
        while self._waiting:
            await self._settler.hand_back(self._waiting.popleft())
        await self._finished()
        await self._store_watch.wait()
        log.info("consumer_resumed", consumer=self.consumer.name)
        self._probing = True
        if not self._draining:
            await self._subscription.set_prefetch(1)

    async def _finished(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._handle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The delivery stays unsettled and comes back, counted as a crash: never silent, never lost.
            log.error("runner_failed", consumer=self.consumer.name, exc_info=error)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._settle(delivery)
        except StoreUnavailableError:
            self._needs_store = True
            self._store_watch.report_away()
            await self._settler.hand_back(delivery)
        except asyncio.CancelledError:
            await self._settler.hand_back(delivery)
            raise

    async def _settle(self, delivery: Delivery) -> None:
        message = delivery.message
        event = self._event(message)
        if event is None:
            await self._settler.pass_on(delivery)
        elif not isinstance(event, self.consumer.event_types):
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
        if claimed is Claim.COMPLETED:
            await self._settler.ack(delivery, "duplicate")
        elif claimed is Claim.LEASED:
            await self._settler.wait_for_lease(delivery, self._lease_wait_s)
        elif delivery.crashes >= FATAL_CRASHES:
            await self._release(message)
            await self._settler.bury(delivery, "worker crashed")
        else:
            name = self.consumer.name
            metrics.LAG_SECONDS.labels(name).observe(max(0.0, time.time() - message.received_at_us / 1e6))
            with metrics.RUNNING.labels(name).track_inprogress(), metrics.HANDLER_SECONDS.labels(name).time():
                outcome = await self._attempt(message, event)
            await self._conclude(delivery, outcome)

    async def _attempt(self, message: Message, event: Event) -> Outcome:
        context = Context(
            consumer=self.consumer.name,
            event_id=message.event_id,
            attempt=message.attempt,
            received_at=_EPOCH + timedelta(microseconds=message.received_at_us),
            body=message.body,
            log=log.bind(consumer=self.consumer.name, event_id=message.event_id, attempt=message.attempt),
            store=self._store,
        )
        try:
            return await attempt(self.consumer, event, context)
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
        if not self.consumer.remember:
            return Claim.CLAIMED
        return await claim(
            self._store,
            consumer=self.consumer.name,
            event_id=message.event_id,
            owner=self._owner,
            lease_s=self._lease_s,
        )

    async def _remember(self, message: Message) -> None:
        """Remember the completion, however long the store is away: the handler has done its work."""
        while self.consumer.remember:
            try:
                await complete(self._store, consumer=self.consumer.name, event_id=message.event_id, owner=self._owner)
            except StoreUnavailableError:
                self._store_watch.report_away()
                await self._store_watch.wait()
                continue
            return

    async def _release(self, message: Message) -> None:
        """Let go of the lease; if the store is away it runs out by itself."""
        if not self.consumer.remember:
            return
        try:
            await release(self._store, consumer=self.consumer.name, event_id=message.event_id, owner=self._owner)
        except StoreUnavailableError:
            self._store_watch.report_away()
