"""One process's consumers over one transport and one store, and what runs beside them."""

import asyncio
import inspect
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from types import CodeType, FrameType
from typing import Final, Self

import structlog

from broker import DEFAULT_RETRY_DELAYS_S, ConsumerQueues, Delivery, NotPublishedError, Transport
from schemas import RecordingEvent, decode
from store import (
    BEFORE_ALL,
    DeadLetter,
    OverdueDelivery,
    Place,
    Store,
    StoreError,
    keep_dead_letters,
    prune_changes,
    prune_completions,
    prune_dead_letters,
    prune_events,
    prune_questions,
    register_consumers,
    renew,
    report_overdue,
    wait_for_schema,
)
from telemetry import metrics
from workers.api import Consumer
from workers.memory import (
    AnyMemory,
    Claims,
    Memory,
    MemoryOff,
    is_dead,
    new_lease_holder,
    release_leases_of_dead_holders,
)
from workers.runner import Runner
from workers.store_watch import AWAY_ERRORS, StoreWatch
from workers.verification import wall_clock_us

#: Moved in one transaction, and the prefetch of the queue.
_GROUP = 50

_log = structlog.get_logger()


class DeadLetterMover:
    """Consumes the dead letters of one consumer while the store is here; an async context manager.

    Insert, then ack: a letter that is delivered twice is inserted once. None is ever given up. What a policy of the
    broker made expire was never refused by anybody: it is put back into the consumer's queue.
    """

    def __init__(self, queues: ConsumerQueues, *, transport: Transport, store: Store, store_watch: StoreWatch) -> None:
        self._consumer = queues.consumer
        self._transport = transport
        self._store = store
        self._store_watch = store_watch
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._subscription = transport.subscribe(queues, self._arrived.put_nowait, prefetch=_GROUP, dead=True)
        self._moving: list[Delivery] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._subscription.__aenter__()
        name = f"dead letters of {self._consumer}"
        self._task = asyncio.create_task(_again_and_again(self._move, name), name=name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._subscription.__aexit__(*exc_info)

    async def _move(self) -> None:
        while True:
            # Those of a try that failed come first: none is forgotten.
            group = self._moving = self._moving or [await self._arrived.get()]
            while not self._arrived.empty() and len(group) < _GROUP:
                group.append(self._arrived.get_nowait())
            taken_out = [one for one in group if one.taken_out in _EXPIRED]
            for delivery in taken_out:
                await self._put_back(delivery)
                group.remove(delivery)
            if taken_out:
                # The policy may take them out again at once.
                await asyncio.sleep(_AGAIN_S)
            letters = [_letter(self._consumer, delivery) for delivery in group]
            while letters:
                await self._store_watch.wait()
                try:
                    await keep_dead_letters(self._store, letters)
                except AWAY_ERRORS as error:
                    self._store_watch.report_away(error)
                    continue
                break
            self._moving = []
            for acknowledged in [delivery.ack() for delivery in group]:
                await acknowledged
            metrics.DEAD_LETTERS_MOVED.labels(self._consumer).inc(len(letters))

    async def _put_back(self, delivery: Delivery) -> None:
        message = delivery.message
        while True:
            try:
                await self._transport.send(self._consumer, message)
            except NotPublishedError:
                await self._transport.wait_ready()
                await asyncio.sleep(_AGAIN_S)
                continue
            break
        await delivery.ack()
        metrics.EXPIRED.labels(self._consumer).inc()
        _log.warning(
            "event_expired",
            consumer=self._consumer,
            event_id=message.event_id,
            consequence="it was put back",
            advice="a policy of the broker sets message-ttl or max-length: `tiw doctor` names it",
        )


#: What the broker says of messages that a policy of its own took out.
_EXPIRED: Final = frozenset({"expired", "maxlen"})


#: Reasons of the broker, in our words.
_TAKEN_OUT: Final = {"delivery_limit": "the broker gave up: it came back unsettled too often"}


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
        reason=_TAKEN_OUT.get(delivery.taken_out, delivery.taken_out) or message.reason or "unknown",
        # Of an earlier attempt, if the broker took it out.
        traceback="" if delivery.taken_out else message.traceback,
        first_failed_at_us=message.first_failed_at_us or failed_at_us,
        last_failed_at_us=failed_at_us,
        body=message.body,
        routing_key=message.routing_key,
        received_at_us=message.received_at_us,
        trace=message.trace,
        source=message.source,
    )


#: How often it is looked for what is old.
PRUNE_EVERY_S: Final = 3600.0

#: So many rounds go on where the one before ended; then all is looked at again.
_ROUNDS: Final = 24

#: Between two transactions, so that the consumers have the store to themselves most of the time.
_PAUSE_S = 0.1

_DAY_S = 86_400.0


async def keep_pruning(store: Store, store_watch: StoreWatch, *, retention_days: int) -> None:
    """Prune now and every hour: completions after 7 days; events and dead letters after `retention_days`, 0: never.

    Of events and dead letters only what `store.retention` says: never what a recording is made of, never a dead letter
    that was not replayed; and with them questions about recordings of which nothing is known, and what was changed in
    the console. What was looked at once
    is looked at again a day later: it may be superseded by then.
    """
    while True:
        place = BEFORE_ALL
        for _ in range(_ROUNDS):
            try:
                place = await _prune(store, retention_days=retention_days, after=place)
            except StoreError as error:
                store_watch.report_away(error)
            await asyncio.sleep(PRUNE_EVERY_S)


async def _prune(store: Store, *, retention_days: int, after: Place = BEFORE_ALL) -> Place:
    counts = {"completions": await prune_completions(store)}
    if retention_days:
        older_than_s = retention_days * _DAY_S
        counts["dead_letters"] = await prune_dead_letters(store, older_than_s=older_than_s)
        counts["questions"] = await prune_questions(store, older_than_s=older_than_s)
        counts["changes"] = await prune_changes(store, older_than_s=older_than_s)
        counts["events"] = 0
        async for pruned in prune_events(store, older_than_s=older_than_s, after=after):
            counts["events"] += pruned.deleted
            after = pruned.place
            await asyncio.sleep(_PAUSE_S)
    for what, count in counts.items():
        metrics.PRUNED.labels(what).inc(count)
    if any(counts.values()):
        _log.info("store_pruned", retention_days=retention_days, **counts)
    return after


#: How long the loop may not turn before it is logged.
STALL_S = 1.0

_BEAT_S = 0.25

#: How often a loop is looked at that waits for something to happen.
_REST_S = 0.5

#: The code that waits in asyncio's loops; None, which is nobody's code, should a version have it no more:
#: https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L1943
_RUN_ONCE: Final[CodeType | None] = getattr(getattr(asyncio.BaseEventLoop, "_run_once", None), "__code__", None)


class StallWatch:
    """Watches the running loop from a thread, as an async context manager.

    `consumers` maps the code of handlers to their consumer's name, to say whose code the loop is stuck in. A stall
    is logged once when it has lasted `STALL_S`, and once more with its length when it is over.

    A handler that blocks (a sleep, a large file, `requests`) stops every other handler of its process, and the
    connection's heartbeats too: the broker then hands its deliveries to somebody else.
    """

    def __init__(self, consumers: Mapping[CodeType, str], *, stall_s: float = STALL_S) -> None:
        self._consumers = consumers
        self._stall_s = stall_s
        self._last_beat_s = time.monotonic()
        self._is_asked = False
        self._is_left = False
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread_id = 0
        self._below_loop: FrameType | None = None
        self._thread = threading.Thread(target=self._watch, name="tiw-stall-watch", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread_id = threading.get_ident()
        self._below_loop = _below_task(sys._getframe())  # noqa: SLF001 - public by its docs
        self._beat()
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_left = True
        self._below_loop = None

    @property
    def is_resting(self) -> bool:
        """Whether the loop waits for something to happen, as its stack tells without waking it; for other threads.

        False also where that cannot be seen.
        """
        frame = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001 - public by its docs
        if frame is None or frame.f_back is None:
            return False
        # uvloop has no frames of its own; asyncio's waits in `select`.
        return frame is self._below_loop or (frame.f_code.co_name == "select" and frame.f_back.f_code is _RUN_ONCE)

    def _beat(self) -> None:
        self._last_beat_s = time.monotonic()
        self._is_asked = False

    def _ask(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            with suppress(RuntimeError):  # it was closed
                self._loop.call_soon_threadsafe(self._beat)

    def _watch(self) -> None:
        stalled: tuple[float, str | None] | None = None
        pause_s = _BEAT_S
        while True:
            # Half of what it costs to wait for an event with a time-out.
            time.sleep(pause_s)
            if self._is_left:
                return
            if stalled is None and self.is_resting:
                pause_s = _REST_S
                continue
            if pause_s == _REST_S:
                # It turned since, and nobody knows how lately.
                self._last_beat_s = time.monotonic() - _BEAT_S
                pause_s = _BEAT_S
            beat_s = self._last_beat_s
            if stalled is None and time.monotonic() - beat_s > self._stall_s:
                consumer, at = self._culprit()
                stalled = (beat_s, consumer)
                metrics.LOOP_STALLS.labels(consumer or "").inc()
                _log.warning("loop_stalled", consumer=consumer, at=at, advice="use a plain def, or await instead")
            elif stalled is not None and beat_s != stalled[0]:
                _log.warning("loop_resumed", consumer=stalled[1], stalled_s=round(beat_s - stalled[0], 1))
                stalled = None
            self._ask()

    def _culprit(self) -> tuple[str | None, str | None]:
        """Return the consumer whose code is on the loop's stack, and where the stack ends."""
        frame: FrameType | None = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001 - public by its docs
        at = None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        while frame is not None:
            name = self._consumers.get(frame.f_code)
            if name is not None:
                return name, at
            frame = frame.f_back
        return None, at


def _below_task(frame: FrameType | None) -> FrameType | None:
    """Return the frame that a task's outermost coroutine was called from."""
    while frame is not None and frame.f_code.co_flags & inspect.CO_COROUTINE:
        frame = frame.f_back
    return frame


class OverdueWatch:
    """Counts the deliveries of each consumer that should have been settled, from a thread; an async context manager.

    `overdue` tells them for each consumer. Each is logged once, the metric `tiw_deliveries_overdue` says how many
    there are, and the store knows them while they last. A thread, as what stands still may be the event loop.
    """

    def __init__(
        self,
        overdue: Callable[[], Mapping[str, Sequence[tuple[str, float]]]],
        *,
        store_url: str,
        lease_holder: str,
    ) -> None:
        self._overdue = overdue
        self._store_url = store_url
        self._lease_holder = lease_holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tiw-overdue-watch", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        told: set[tuple[str, str]] = set()
        reported_at_s = -math.inf
        while not self._stop.wait(OVERDUE_LOOK_EVERY_S):
            overdue = self._look()
            for one in overdue:
                if (one.consumer, one.event_id) not in told:
                    _log.error(
                        "delivery_overdue",
                        consumer=one.consumer,
                        event_id=one.event_id,
                        unsettled_s=round(one.unsettled_s),
                        advice="restart this worker: what it holds is delivered again",
                    )
            seen = {(one.consumer, one.event_id) for one in overdue}
            is_due = time.monotonic() >= reported_at_s + _REPORT_OVERDUE_EVERY_S
            if seen != told or (seen and is_due):
                reported_at_s = time.monotonic() if self._report(overdue) else -math.inf
            told = seen

    def _look(self) -> list[OverdueDelivery]:
        overdue = []
        for consumer, deliveries in self._overdue().items():
            metrics.OVERDUE.labels(consumer).set(len(deliveries))
            overdue += [
                OverdueDelivery(
                    consumer=consumer, event_id=event_id, lease_holder=self._lease_holder, unsettled_s=unsettled_s
                )
                for event_id, unsettled_s in deliveries
            ]
        return overdue

    def _report(self, overdue: Sequence[OverdueDelivery]) -> bool:
        async def report() -> None:
            # With a loop and connections of its own: those of the worker may be what stands still.
            async with Store(self._store_url) as store:
                await report_overdue(store, overdue, lease_holder=self._lease_holder)

        try:
            asyncio.run(report())
        except Exception as error:  # noqa: BLE001 - logged, and tried again; the metric does not need the store
            _log.warning("overdue_not_reported", reason=str(error))
            return False
        return True


#: A report counts for a minute: see `list_overdue`.
_REPORT_OVERDUE_EVERY_S: Final = 15.0

#: How often it is looked for deliveries that are overdue.
OVERDUE_LOOK_EVERY_S = 5.0

#: A lease outlives a missed renewal or two; after a crash the event waits this long at most, plus a retry delay.
LEASE_S = 30.0

#: So many renewals in a row are left out while nothing is here.
_RENEWALS_SKIPPED: Final = 5

#: What unfinished handlers get on shutdown before they are requeued.
DRAIN_GRACE_S = 25.0


class Worker:
    """Runs `consumers` until it is left, as an async context manager.

    Entering returns at once: the consumers start when the store has its schema, and say that they wait for it.
    Leaving drains them: nothing new is taken, what runs may finish within `drain_grace_s`, the rest is requeued.
    Meanwhile the store forgets what is older than `retention_days` (0: keeps it); see `prune`.

    The last five are for whoever imitates processes: how this one is named in the leases and told to be dead, which
    clocks tell whether leases still hold and how long events have waited to be verified, and who watches for handlers
    that block (otherwise: threads).
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        *,
        transport: Transport,
        store: Store,
        retry_delays_s: Sequence[float] = DEFAULT_RETRY_DELAYS_S,
        lease_s: float = LEASE_S,
        drain_grace_s: float = DRAIN_GRACE_S,
        retention_days: int = 0,
        new_lease_holder: Callable[[], str] = new_lease_holder,
        is_dead: Callable[[str], bool] = is_dead,
        monotonic_s: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_clock_us,
        stall_watch: Callable[[Mapping[CodeType, str]], AbstractAsyncContextManager[object]] | None = None,
    ) -> None:
        for consumer in consumers:
            metrics.OVERDUE.labels(consumer.name).set(0)
            metrics.EXPIRED.labels(consumer.name)
        self._consumers = consumers
        self._transport = transport
        self._store = store
        self._retry_delays_s = tuple(retry_delays_s)
        self._lease_s = lease_s
        self._drain_grace_s = drain_grace_s
        self._retention_days = retention_days
        self._lease_holder = new_lease_holder()
        self._is_dead = is_dead
        self._monotonic_s = monotonic_s
        self._now_us = now_us
        self._has_threads = stall_watch is None
        self._stall_watch = StallWatch if stall_watch is None else stall_watch
        self._runners: list[Runner] = []
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the broker has every consumer of this worker right now."""
        return len(self._runners) == len(self._consumers) and all(runner.is_consuming for runner in self._runners)

    async def wait(self) -> None:
        """Return when the worker ends by itself, which it does only by raising what broke it."""
        if self._main is not None:
            await asyncio.shield(self._main)

    async def __aenter__(self) -> Self:
        self._main = asyncio.create_task(self._run(), name="worker")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping.set()
        if self._main is not None:
            if not self._runners:
                self._main.cancel()
            await asyncio.wait({self._main})

    async def _run(self) -> None:
        await _again_and_again(self._register, "registration", until_done=True)
        async with AsyncExitStack() as stack:
            code = {consumer.function.__code__: consumer.name for consumer in self._consumers}
            await stack.enter_async_context(self._stall_watch(code))
            if self._has_threads:
                await stack.enter_async_context(
                    OverdueWatch(self._overdue, store_url=self._store.url, lease_holder=self._lease_holder)
                )
            store_watch = await stack.enter_async_context(StoreWatch(self._store))
            for name, chore in (
                ("lease renewal", lambda: self._renew_leases(store_watch)),
                ("pruning", lambda: keep_pruning(self._store, store_watch, retention_days=self._retention_days)),
            ):
                stack.push_async_callback(_end, asyncio.create_task(_again_and_again(chore, name), name=name))
            for consumer in self._consumers:
                mover = DeadLetterMover(
                    consumer.queues, transport=self._transport, store=self._store, store_watch=store_watch
                )
                await stack.enter_async_context(mover)
                runner = Runner(
                    consumer,
                    transport=self._transport,
                    store=self._store,
                    store_watch=store_watch,
                    retry_delays_s=self._retry_delays_s,
                    memory=self._memory_of(consumer, store_watch),
                    now_us=self._now_us,
                )
                self._runners.append(await stack.enter_async_context(runner))
            _log.info("worker_started", consumers=[consumer.name for consumer in self._consumers])
            await self._stopping.wait()
            await asyncio.gather(*(runner.drain(grace_s=self._drain_grace_s) for runner in self._runners))
            _log.info("worker_drained")

    def _overdue(self) -> dict[str, list[tuple[str, float]]]:
        return {runner.consumer.name: runner.overdue() for runner in list(self._runners)}

    def _memory_of(self, consumer: Consumer, store_watch: StoreWatch) -> AnyMemory:
        if not consumer.remember:
            return MemoryOff()
        claims = Claims(
            consumer.name,
            store=self._store,
            store_watch=store_watch,
            lease_holder=self._lease_holder,
            lease_s=self._lease_s,
            is_dead=self._is_dead,
            monotonic_s=self._monotonic_s,
        )
        return Memory(consumer.name, claims)

    async def _register(self) -> None:
        """Tell the store which consumers there are, so that they can be listed where they do not run."""
        routing_keys = {consumer.name: consumer.routing_keys for consumer in self._consumers}
        while True:
            await wait_for_schema(self._store)
            try:
                await register_consumers(self._store, routing_keys)
                await release_leases_of_dead_holders(self._store, is_dead=self._is_dead)
            except StoreError as error:
                _log.warning("store_awaited", reason=str(error), again_in_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
                continue
            return

    async def _renew_leases(self, store_watch: StoreWatch) -> None:
        skipped = 0
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                began_s = self._monotonic_s()
                if skipped < _RENEWALS_SKIPPED and all(runner.is_idle for runner in self._runners):
                    # There is none to renew; now and then all the same, as it shows whether the store takes writes.
                    skipped += 1
                else:
                    skipped = 0
                    # First: what follows takes as long as it takes.
                    await renew(self._store, lease_holder=self._lease_holder, lease_s=self._lease_s)
                for runner in self._runners:
                    runner.note_renewal(began_s=began_s)
                for runner in self._runners:
                    await runner.release_owed()
            except StoreError as error:
                store_watch.report_away(error)


#: After an error that nobody foresaw.
_AGAIN_S = 1.0


async def _again_and_again(work: Callable[[], Awaitable[None]], name: str, *, until_done: bool = False) -> None:
    """Do `work` over and over, or until it is done once: no error of a database ends it, foreseen or not."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - logged, and tried again
            _log.exception("worker_failed", task=name, again_in_s=_AGAIN_S)
            await asyncio.sleep(_AGAIN_S)
        else:
            if until_done:
                return


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
