"""The runner of one consumer: how many deliveries it takes, when, and what runs beside what.

Deliveries that came back unsettled `SUSPECT_CRASHES` times may be what kills the worker, and they drag along
whatever else is unsettled in the same process. So they are run with nothing beside them, one at a time, and a fresh
subscription starts with one delivery at a time until it has seen a harmless one.
"""

import asyncio
from collections import deque
from typing import Self

import structlog

from broker import Delivery, Subscription, Transport
from store import Store, StoreUnavailableError
from workers.consumer import Consumer
from workers.handling import Handling
from workers.settling import Settler
from workers.store_watch import StoreWatch

#: From this many crashes on a delivery runs alone.
SUSPECT_CRASHES = 3

_log = structlog.get_logger()


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
        self._store_watch = store_watch
        self._settler = Settler(consumer, transport, retry_delays_s)
        self._handling = Handling(
            consumer,
            self._settler,
            store=store,
            store_watch=store_watch,
            retry_delays_s=retry_delays_s,
            owner=owner,
            lease_s=lease_s,
        )
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(consumer.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._needs_store = consumer.remember
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

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain(grace_s=0)
        await self._subscription.__aexit__(*exc_info)

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
                _log.warning("drain_cut_short", consumer=self.consumer.name, running=len(self._tasks))
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
            await self._start(delivery)

    async def _run_alone(self) -> None:
        """Run the suspect at the head with nothing beside it; put other suspects back into the queue."""
        if not self._probing:
            self._probing = True
            await self._subscription.set_prefetch(0)
        # What is not started yet stays in self._waiting, where a drain that comes in between finds it.
        suspect, *others = [delivery for delivery in self._waiting if delivery.crashes >= SUSPECT_CRASHES]
        for other in others:
            self._waiting.remove(other)
            await self._settler.hand_back(other)
        while harmless := [delivery for delivery in self._waiting if delivery.crashes < SUSPECT_CRASHES]:
            await self._start(harmless[0])
        await self._finished()
        await self._start(suspect)
        await self._finished()
        if not self._draining:
            await self._subscription.set_prefetch(1)

    async def _sit_out(self) -> None:
        """Hand back what is here and wait until the store answers again.

        Not held on to: a delivery that stays unsettled for 30 minutes costs the channel, and counts as a crash.
        """
        _log.warning("consumer_paused", consumer=self.consumer.name, reason="the store does not answer")
        await self._subscription.set_prefetch(0)
        while self._waiting:
            await self._settler.hand_back(self._waiting.popleft())
        await self._finished()
        await self._store_watch.wait()
        _log.info("consumer_resumed", consumer=self.consumer.name)
        self._probing = True
        if not self._draining:
            await self._subscription.set_prefetch(1)

    async def _finished(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _start(self, delivery: Delivery) -> None:
        """Take a delivery out of those that wait, as soon as there is a slot for it."""
        await self._slots.acquire()
        self._waiting.remove(delivery)
        task = asyncio.create_task(self._handle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The delivery stays unsettled and comes back, counted as a crash: never silent, never lost.
            _log.error("runner_failed", consumer=self.consumer.name, exc_info=error)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._handling.handle(delivery)
        except StoreUnavailableError:
            self._needs_store = True
            self._store_watch.report_away()
            await self._settler.hand_back(delivery)
        except asyncio.CancelledError:
            await self._settler.hand_back(delivery)
            raise
