"""A job is a delivery and all that is known of it. Nobody keeps a second list of what is here."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Generic, Self, TypeVar

import structlog

from broker import Delivery
from schemas import Event
from telemetry import metrics
from workers.api import Context

Item = TypeVar("Item")

_log = structlog.get_logger()


class Disposition(StrEnum):
    """What became of a delivery, in the words of the metrics' label. The first four are a handler's outcomes."""

    ACK = "ack"
    RETRY = "retry"
    DROP = "drop"
    DEAD_LETTER = "dead_letter"
    #: The store remembers that its event was handled.
    DUPLICATE = "duplicate"
    #: Another delivery of its event is being handled, here or elsewhere.
    LEASED = "leased"
    #: The vendor has not confirmed its event yet.
    UNVERIFIED = "unverified"
    #: Its consumer takes no such events any more.
    UNWANTED = "unwanted"
    #: A newer ingest node recognized what this worker does not: kept as unrecognized.
    PASSED_ON = "passed_on"


class Job:
    """One delivery, from its arrival until it is settled.

    `event` and `context` are there once it is admitted. `came_s` is when it came and `begun_s` when its handler was
    called, if it was, by the monotonic clock; `crashes` how many workers died with it. `failed_in_group` is why the
    call for its whole group failed, if it did: it is then run alone. `traceback` is that of what its handler raised.
    """

    __slots__ = (
        "begun_s",
        "came_s",
        "context",
        "crashes",
        "delivery",
        "event",
        "event_id",
        "failed_in_group",
        "message",
        "traceback",
    )

    context: Context
    event: Event | None

    def __init__(self, delivery: Delivery, *, came_s: float) -> None:
        self.delivery = delivery
        self.message = message = delivery.message
        self.event_id = message.event_id
        self.crashes = delivery.crashes
        self.came_s = came_s
        self.begun_s: float | None = None
        self.event = None
        self.failed_in_group: str | None = None
        self.traceback = ""


class Jobs:
    """The jobs of one consumer in this process: which are not settled, and which event each is handling."""

    def __init__(self) -> None:
        self._unsettled: set[Job] = set()
        self._handled: dict[str, Job] = {}
        self._changed = asyncio.Event()

    @property
    def unsettled(self) -> list[Job]:
        """The jobs whose deliveries are here and not settled."""
        return list(self._unsettled)

    def add(self, delivery: Delivery) -> Job:
        """Take in a delivery that came."""
        job = Job(delivery, came_s=time.monotonic())
        self._unsettled.add(job)
        return job

    def handler_of(self, event_id: str) -> Job | None:
        """Return the job that handles an event now."""
        return self._handled.get(event_id)

    def handle(self, job: Job) -> Job:
        """Let a job handle its event from now on, unless another one does; return the one that does."""
        return self._handled.setdefault(job.event_id, job)

    def handled(self, job: Job) -> None:
        """Take note that a job handles its event no longer."""
        if self._handled.get(job.event_id) is job:
            del self._handled[job.event_id]

    def settled(self, job: Job) -> None:
        """Forget a job: its delivery is acknowledged, or left for the broker to deliver again."""
        self._unsettled.discard(job)
        self._changed.set()

    def look_again(self) -> None:
        """Let whoever waits in `until` ask its question again."""
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once `is_so`, which is asked whenever a job is settled."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    @property
    def are_none(self) -> bool:
        """Whether there is no job, nor one that is settled and still handles its event."""
        return not self._unsettled and not self._handled

    def are_settled(self, *, but: Job | None = None) -> bool:
        """Say whether no job is left, `but` apart."""
        return all(job is but for job in self._unsettled)


class Group(Generic[Item]):
    """One operation at a time, over all items that came while the last one ran; an async context manager.

    Groups form by themselves: under load they are large, and a single item never waits for another. At most `at_most`
    items are one group.

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


_LEVELS = {
    Disposition.ACK: logging.DEBUG,
    # It is looked up again and again.
    Disposition.UNVERIFIED: logging.DEBUG,
    Disposition.DEAD_LETTER: logging.WARNING,
}
_EVENTS = {
    Disposition.ACK: "event_handled",
    Disposition.RETRY: "retry_scheduled",
    Disposition.DROP: "event_dropped",
    Disposition.DEAD_LETTER: "dead_lettered",
}


#: How long what was counted may stay unseen.
_FLUSH_S = 0.25


class JobTelemetry:
    """Metrics and log lines about one consumer's jobs, at a small cost for each: what is counted is flushed later."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._lag_seconds = metrics.LAG_SECONDS.labels(consumer)
        self._handler_seconds = metrics.HANDLER_SECONDS.labels(consumer)
        self._running = metrics.RUNNING.labels(consumer)
        self._retries_scheduled = metrics.RETRIES_SCHEDULED.labels(consumer)
        self._deliveries = {word: metrics.DELIVERIES.labels(consumer, word.value) for word in Disposition}
        self._calls = 0
        self._will_flush = False
        self._is_debugging = bool(_log.is_enabled_for(logging.DEBUG))

    def begun(self, jobs: Sequence[Job]) -> None:
        """Note that a call of the handler begins, for these jobs."""
        self._calls += 1
        now_us = time.time_ns() // 1000
        for job in jobs:
            lag_us = now_us - job.message.received_at_us
            self._lag_seconds.observe(lag_us / 1e6 if lag_us > 0 else 0.0)
        self._flush_soon()

    def ended(self, took_s: float) -> None:
        """Note that a call of the handler has ended."""
        self._calls -= 1
        self._handler_seconds.observe(took_s)
        self._flush_soon()

    def settled(self, job: Job, disposition: Disposition, **details: float | str) -> None:
        """Note what became of a delivery."""
        self._deliveries[disposition].inc()
        if not self._will_flush:
            self._flush_soon()
        if disposition is Disposition.ACK and not self._is_debugging:
            return  # as nearly all
        if disposition is Disposition.RETRY:
            self._retries_scheduled.inc()
        _log.log(
            _LEVELS.get(disposition, logging.INFO),
            _EVENTS.get(disposition, f"delivery_{disposition}"),
            consumer=self._consumer,
            event_id=job.event_id,
            attempt=job.message.attempt,
            **details,
        )

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Let what was counted be seen now."""
        self._will_flush = False
        if self._calls:
            self._running.inc(self._calls)
            self._calls = 0
        metrics.flush()
