"""The runner of one consumer: how many deliveries it takes, when, and what runs beside what.

Deliveries that came back unsettled `SUSPECT_CRASHES` times may be what kills the worker, and they drag along
whatever else is unsettled in the same process. So they are run with nothing beside them, one at a time, and a fresh
subscription starts with one delivery at a time until it has seen a harmless one.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

import structlog

from broker import Delivery, Subscription, Transport
from store import Store
from workers.api import Consumer
from workers.execution import SETTLED_WITHIN_S, Execution
from workers.job import Job, Jobs, JobTelemetry
from workers.memory import AnyMemory
from workers.settling import Settler
from workers.store_watch import StoreWatch
from workers.verification import wall_clock_us

_log = structlog.get_logger()

#: The most deliveries at once, unless a single call takes more.
MAX_DELIVERIES = 2000

#: About the most bytes of bodies at once: a queue of large ones is taken in smaller numbers.
MAX_BYTES = 64 * 1024 * 1024

#: What the largest body is remembered by: after 1,000 smaller ones it counts for about a third.
_FADING = 0.999


class Prefetch:
    """The prefetch of one consumer, by the size of the bodies that come."""

    def __init__(self, consumer: Consumer) -> None:
        calls, batch = consumer.concurrency, consumer.batch or 1
        self._least = 2 * calls
        self._most = min(2 * calls * batch, max(MAX_DELIVERIES, 2 * batch))
        self._largest_bytes = 1.0
        self._sized_for_bytes = 1

    @property
    def count(self) -> int:
        """The deliveries of all calls, and as many waiting; fewer if they are large, but as many as there are calls."""
        return max(self._least, min(self._most, MAX_BYTES // self._sized_for_bytes))

    def note(self, size_bytes: int) -> bool:
        """Take the size of a body into account; True if `count` may be another now."""
        self._largest_bytes = largest_bytes = max(size_bytes, self._largest_bytes * _FADING)
        if self._sized_for_bytes / 4 < largest_bytes <= self._sized_for_bytes:
            return False
        # Up to the next power of two, so that it seldom changes: changing it costs a round trip.
        self._sized_for_bytes = 1 << (int(largest_bytes) - 1).bit_length() if largest_bytes > 1 else 1
        return True


#: A delivery is overdue this long after its time-out: cancelling its handler and settling it take no longer. One whose
#: handler was not called yet may wait for its turn.
OVERDUE_AFTER_S = 60.0

#: From this many crashes on a delivery runs alone.
SUSPECT_CRASHES = 3


class Runner:
    """Runs one consumer on its queue until it is drained; an async context manager.

    At most `consumer.concurrency` calls of its handler at once; see `Prefetch` for how much waits here. `memory` says
    which events are ours, `now_us` how long one has waited to be verified. While the store is away, a consumer that
    needs it takes nothing and requeues what it has.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        transport: Transport,
        store: Store,
        store_watch: StoreWatch,
        retry_delays_s: tuple[float, ...],
        memory: AnyMemory,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.consumer = consumer
        self._store_watch = store_watch
        self._memory = memory
        self._jobs = Jobs()
        self._telemetry = telemetry = JobTelemetry(consumer.name)
        self._settler = Settler(
            consumer, transport=transport, jobs=self._jobs, telemetry=telemetry, retry_delays_s=retry_delays_s
        )
        self._attention = asyncio.Event()
        self._execution = Execution(
            consumer,
            jobs=self._jobs,
            memory=memory,
            settler=self._settler,
            telemetry=telemetry,
            store=store,
            store_watch=store_watch,
            on_away=self._attention.set,
            now_us=now_us,
        )
        self._suspects: list[Job] = []
        self._is_probing = True
        self._has_seen_harmless = False
        self._is_draining = False
        self._sizing = Prefetch(consumer)
        self._prefetch = 1
        self._subscription: Subscription = transport.subscribe(consumer.queues, self._on_delivery, prefetch=1)
        self._supervisor: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer right now."""
        return self._subscription.is_consuming

    def overdue(self) -> list[tuple[str, float]]:
        """Return the ids of events whose deliveries should have been settled, and for how many seconds they stand.

        May be called from another thread: what stands still may be the event loop.
        """
        now_s = time.monotonic()
        late = []
        for job in self._jobs.unsettled:
            began_s, may_take_s = job.begun_s, self.consumer.timeout_s
            if began_s is None:
                began_s, may_take_s = job.came_s, SETTLED_WITHIN_S
            if now_s > began_s + may_take_s + OVERDUE_AFTER_S:
                late.append((job.event_id, now_s - job.came_s))
        return late

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here that could have a lease."""
        return self._jobs.are_none

    def note_renewal(self, *, began_s: float) -> None:
        """Take note that the leases of this process were renewed, by a statement that was begun then."""
        self._memory.renewed(began_s=began_s)

    async def release_owed(self) -> None:
        """Let go of leases that could not be released while the store was away. Raises `StoreError`."""
        await self._memory.release_owed()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._subscription)
        await self._stack.enter_async_context(self._settler)
        await self._stack.enter_async_context(self._execution)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervisor of {self.consumer.name}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain(grace_s=0)
        await self._stack.aclose()
        self._telemetry.flush()

    async def drain(self, *, grace_s: float) -> None:
        """Take nothing more, finish what is here within `grace_s`, requeue the rest without counting it."""
        if self._is_draining:
            return
        self._is_draining = True
        self._execution.begin_draining()
        await self._subscription.set_prefetch(0)
        try:
            async with asyncio.timeout(grace_s):
                await self._settler.settled()
        except TimeoutError:
            _log.warning("drain_cut_short", consumer=self.consumer.name, running=self._execution.running)
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        await self._execution.stop()
        await self._settler.stop()
        rest = self._jobs.unsettled
        await self._memory.release(rest)
        await self._settler.requeue_all(rest)

    def _on_delivery(self, delivery: Delivery) -> None:
        job = self._jobs.add(delivery)
        if self._sizing.note(len(delivery.message.body)):
            self._attention.set()
        if job.crashes >= SUSPECT_CRASHES and self._jobs.handler_of(job.event_id) is None:
            self._suspects.append(job)
            self._attention.set()
            return
        if self._is_probing:
            self._has_seen_harmless = True
            self._attention.set()
        self._execution.accept(job)

    async def _supervise(self) -> None:
        while True:
            await self._attention.wait()
            self._attention.clear()
            if self._execution.must_wait:
                await self._sit_out()
            while self._suspects:
                await self._run_alone()
            if self._has_seen_harmless or not self._is_probing:
                self._is_probing = self._has_seen_harmless = False
                await self._take_at_most(self._sizing.count)

    async def _take_at_most(self, prefetch: int) -> None:
        if prefetch != self._prefetch and not self._is_draining:
            self._prefetch = prefetch
            await self._subscription.set_prefetch(prefetch)

    async def _probe(self) -> None:
        """Take one delivery at a time until a harmless one comes."""
        self._is_probing, self._has_seen_harmless = True, False
        await self._take_at_most(1)

    async def _run_alone(self) -> None:
        """Run the first suspect with nothing beside it; put the others back into the queue."""
        self._is_probing = True
        # Also when one is taken at a time: the next suspect would come as soon as this one is settled, and wait for its
        # turn, while nothing goes on here until nothing is held.
        await self._take_at_most(0)
        suspect = self._suspects[0]
        while len(self._suspects) > 1:
            self._settler.requeue(self._suspects.pop())
        # It is among the jobs meanwhile, where a drain that comes in between finds it.
        await self._settler.settled(but=suspect)
        self._suspects.remove(suspect)
        self._execution.accept(suspect)
        await self._settler.settled()
        await self._probe()

    async def _sit_out(self) -> None:
        """Requeue what is here and wait until the store answers again.

        Not held on to: a delivery that stays unsettled for 30 minutes costs the channel, and counts as a crash.
        """
        _log.warning("consumer_paused", consumer=self.consumer.name, reason="the store does not answer")
        await self._take_at_most(0)
        self._execution.requeue_waiting()
        while self._suspects:
            self._settler.requeue(self._suspects.pop())
        await self._store_watch.wait()
        _log.info("consumer_resumed", consumer=self.consumer.name)
        await self._probe()
