"""One job from its delivery to its outcome: admit, verify, claim, call, judge, remember, settle.

What became of an event is kept before its delivery is acknowledged: a success is remembered, a retry or dead letter
is published and confirmed. Whatever dies in between, the event is delivered again.

Everything is done for as many as wait anyway: claiming them, calling the handler, remembering and acknowledging them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import structlog
from msgspec import Struct

from broker import Message
from schemas import UNRECOGNIZED, Event, RecordingEvent, Unrecognized, redecode
from store import Claim, Store
from workers.api import Ack, Consumer, Context, DeadLetter, Drop, Outcome, Retry, describe
from workers.job import Disposition, Job, Jobs, JobTelemetry
from workers.memory import AnyMemory
from workers.settling import Settler
from workers.slots import Ending, Interruption, Slots
from workers.store_watch import AWAY_ERRORS, StoreWatch
from workers.tracebacks import traceback_of
from workers.verification import Verification

#: At this many crashes a delivery is a dead letter.
FATAL_CRASHES = 6

#: A handler is called with a delivery only if that can be settled this long after it came, time-out included: RabbitMQ
#: closes the channel of one that is not settled within 30 minutes.
SETTLED_WITHIN_S = 1750.0

_ACK = Ack()

_log = structlog.get_logger()


class Execution:
    """Handles the jobs of one consumer; an async context manager.

    `on_away` is called when the store that the consumer needs is away: what was not begun is requeued then, unless the
    consumer drains. Leaving stops it.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        jobs: Jobs,
        memory: AnyMemory,
        settler: Settler,
        telemetry: JobTelemetry,
        store: Store,
        store_watch: StoreWatch,
        on_away: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        self._consumer = consumer
        self._jobs = jobs
        self._memory = memory
        self._settler = settler
        self._telemetry = telemetry
        self._store = store
        self._store_watch = store_watch
        self._on_away = on_away
        self._needs_store: bool = memory.needs_store or consumer.verified
        self._is_draining = False
        self._verification = Verification(consumer.name, store=store, user=self, now_us=now_us)
        #: Handle a job as soon as its event is claimed and there is a slot for it.
        self.accept: Callable[[Job], None] = self._verification.look_up if consumer.verified else memory.claim
        #: What the handler can be called with.
        self._ready: deque[Job] = deque()
        #: What it is called with alone, because the call for a whole group failed.
        self._alone: deque[Job] = deque()
        self._slots = Slots[list[Job]](
            consumer, take=self._next, is_waiting=self._is_waiting, arguments=self._arguments, ended=self._ended
        )
        self._stack = AsyncExitStack()
        memory.serve(self)

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._memory)
        if self._consumer.verified:
            await self._stack.enter_async_context(self._verification)
        self._stack.push_async_callback(self._slots.stop)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Interrupt what runs, and leave unsettled what is not concluded."""
        await self._stack.aclose()

    @property
    def running(self) -> int:
        """How many calls of the handler run now."""
        return self._slots.running

    @property
    def must_wait(self) -> bool:
        """Whether nothing can be begun because the store is away."""
        cannot_use_it = self._needs_store or self._store_watch.has_other_tables
        return cannot_use_it and not self._store_watch.is_here and not self._is_draining

    def begin_draining(self) -> None:
        """Try what is here whether the store answers or not."""
        self._is_draining = True
        self._slots.wake()

    def requeue_waiting(self) -> None:
        """Requeue what was not begun."""
        for waiting in (self._ready, self._alone):
            while waiting:
                self._memory.conclude(waiting.popleft(), None)

    # admit -----------------------------------------------------------------------------------------------------------
    def admit(self, job: Job) -> bool:
        """Decode a job's event; False, and it is settled, if the handler need not see it."""
        if job.event is not None:
            return True  # before it was looked up
        message = job.message
        event = event_of(message)
        if event is None:
            self._settler.pass_on(job)
            return False
        if not isinstance(event, self._consumer.event_types):
            # Bound to it once, before its annotation was changed.
            self._settler.ack(job, Disposition.UNWANTED, event_type=message.routing_key)
            return False
        handler = self._jobs.handle(job)
        if handler is not job:
            # The connection was lost and the event delivered again. Nobody died with it: its handler runs here.
            self._settler.wait_for_lease(job, crashes=min(job.crashes, handler.crashes))
            return False
        job.event = event
        job.context = _context(message, consumer=self._consumer.name, store=self._store)
        return True

    # verify ----------------------------------------------------------------------------------------------------------
    def verified(self, job: Job) -> None:
        """Claim a job's event: the vendor confirmed it, or it needs no confirmation."""
        self._memory.claim(job)

    def unverified(self, job: Job, *, since_us: int, waited_s: float) -> None:
        """Let a job's event wait until the vendor has said something."""
        self._jobs.handled(job)
        self._settler.wait_for_verdict(job, since_us=since_us, waited_s=waited_s)

    def refused(self, job: Job, outcome: Outcome) -> None:
        """Settle a job whose handler is not called, and whose event was not claimed."""
        self._jobs.handled(job)
        self._settler.settle(job, outcome)

    # claim -----------------------------------------------------------------------------------------------------------
    def claimed(self, job: Job) -> None:
        """Let a job wait for a slot: its event is ours."""
        self._ready.append(job)
        self._slots.wake()

    def not_claimed(self, job: Job, claim: Claim) -> None:
        """Settle a job whose event was handled, or is being handled elsewhere."""
        self._jobs.handled(job)
        if claim is Claim.COMPLETED:
            self._settler.ack(job, Disposition.DUPLICATE)
        else:
            self._settler.wait_for_lease(job, crashes=job.crashes)

    def found_away(self, jobs: Sequence[Job], error: BaseException | None = None) -> None:
        """Requeue jobs that need the store, which is away, as `error` says."""
        self._needs_store = True
        self._store_watch.report_away(error)
        for job in jobs:
            self._memory.conclude(job, None)
        self._on_away()

    # call ------------------------------------------------------------------------------------------------------------
    def _is_waiting(self) -> bool:
        return bool(self._ready or self._alone)

    def _next(self) -> list[Job] | None:
        """Return what the handler is called with next: what waits anyway, at most as much as it takes."""
        if not self._is_waiting():
            return None
        if self.must_wait:
            self.requeue_waiting()
            self._on_away()
            return None
        now_s = time.monotonic()
        came_after_s = now_s + self._consumer.timeout_s - SETTLED_WITHIN_S
        group = self._next_alone(came_after_s) or self._next_group(came_after_s)
        if group:
            for job in group:
                job.begun_s = now_s
            self._telemetry.begun(group)
        return group or None

    def _next_alone(self, came_after_s: float) -> list[Job]:
        while self._alone:
            job = self._alone.popleft()
            if self._may_begin(job, came_after_s):
                job.traceback = ""
                return [job]
            self._memory.conclude(job, Retry(reason=job.failed_in_group or ""))
        return []

    def _next_group(self, came_after_s: float) -> list[Job]:
        most = self._consumer.batch or 1
        group: list[Job] = []
        while self._ready and len(group) < most:
            job = self._ready.popleft()
            # Without a memory nobody had to know its event before.
            if job.event is None and not self.admit(job):
                continue
            if job.crashes >= FATAL_CRASHES:
                self._memory.conclude(job, DeadLetter("worker crashed"))
            elif self._may_begin(job, came_after_s):
                group.append(job)
            else:
                self._memory.conclude(job, None)
        return group

    def _may_begin(self, job: Job, came_after_s: float) -> bool:
        """Say whether a delivery can still be settled in time, and whether its event is still ours."""
        return job.came_s > came_after_s and self._memory.holds(job)

    def _arguments(self, group: list[Job]) -> tuple[Any, ...]:
        if self._consumer.batch is None:
            return group[0].event, group[0].context
        return ([(job.event, job.context) for job in group],)

    # judge -----------------------------------------------------------------------------------------------------------
    def _ended(self, group: list[Job], ending: Ending) -> None:
        self._telemetry.ended(ending.took_s)
        if ending.result is None and ending.error is None and ending.interruption is None:
            for job in group:
                self._memory.conclude(job, _ACK)
            return
        if ending.interruption is Interruption.STOPPED:
            return  # who stopped it requeues it
        judged = judge(self._consumer, [job.context for job in group], ending)
        traceback = traceback_of(ending.error) if ending.error is not None else ""
        match judged:
            case StoreAway(error=error):
                self.found_away(group, error)
            case EachAlone(reason=reason):
                for job in group:
                    job.failed_in_group = reason
                    job.traceback = traceback
                self._alone.extend(group)
                self._slots.wake()
            case outcomes:
                for job, outcome in zip(group, outcomes, strict=True):
                    job.traceback = traceback
                    self._memory.conclude(job, outcome)

    # remember and settle ---------------------------------------------------------------------------------------------
    def concluded(self, job: Job, outcome: Outcome | None) -> None:
        """Settle a job whose outcome is remembered; None: requeue it as it came."""
        self._jobs.handled(job)
        if outcome is None:
            self._settler.requeue(job)
        else:
            self._settler.settle(job, outcome)


def event_of(message: Message) -> Event | None:
    """Decode a message; None if an ingest node recognized what this worker does not."""
    event = redecode(message.body, routing_key=message.routing_key, received_at_us=message.received_at_us)
    if message.routing_key == UNRECOGNIZED:
        if isinstance(event, RecordingEvent):
            return Unrecognized(
                reason="not recognized by the ingest node that took it in",
                event_type=type(event).__name__,
                timestamp=event.timestamp,
                sdk_app_id=event.sdk_app_id,
            )
        return event
    return None if type(event) is Unrecognized else event


def _context(message: Message, *, consumer: str, store: Store) -> Context:
    return Context(
        consumer=consumer,
        event_id=message.event_id,
        attempt=message.attempt,
        received_at_us=message.received_at_us,
        body=message.body,
        trace=message.trace,
        source=message.source,
        store=store,
    )


class EachAlone(Struct, frozen=True):
    """A call for several events failed as a whole: each is to be run again alone."""

    reason: str


class StoreAway(Struct, frozen=True):
    """The handler raised one of `AWAY_ERRORS`: its events are fine, and their store is away."""

    error: BaseException


def judge(consumer: Consumer, contexts: Sequence[Context], ending: Ending) -> Sequence[Outcome] | EachAlone | StoreAway:
    """Return the outcome of each event of a call that was not stopped, in their order, and log what is unusual.

    Every end has an outcome, whatever the handler returned or raised: this never raises. An outcome is also found
    where it is the cause of another error (`raise ... from`), and in an exception group of nothing but outcomes: then
    the gravest counts, a dead letter before a retry before a drop.
    """
    log = contexts[0].log if len(contexts) == 1 else _log.bind(consumer=consumer.name, events=len(contexts))
    if ending.is_left_behind:
        log.warning("handler_left_behind", timeout_s=consumer.timeout_s)
    judged: Sequence[Outcome] | Outcome | StoreAway
    try:
        judged = _judged(consumer, len(contexts), ending, log)
    except BaseException as error:  # noqa: BLE001 - what a handler returns or raises may do anything when it is looked at
        judged = DeadLetter(f"what the handler came to cannot be read: {describe(error)}")
    if isinstance(judged, StoreAway | Sequence):
        return judged
    if len(contexts) == 1:
        return [judged]
    reason = "" if isinstance(judged, Ack) else judged.reason
    log.info("group_failed", reason=reason, then="each event is run alone")
    return EachAlone(reason)


def _judged(consumer: Consumer, count: int, ending: Ending, log: Any) -> Sequence[Outcome] | Outcome | StoreAway:
    if ending.interruption is Interruption.TIMED_OUT:
        return Retry(reason=f"no answer within {consumer.timeout_s:g} s")
    if ending.error is not None:
        if _is_away(ending.error):
            return StoreAway(ending.error)
        return _of_error(ending.error, log)
    if consumer.batch is None:
        return _of_result(ending.result)
    return _of_results(ending.result, count)


def _is_away(error: BaseException) -> bool:
    """Say whether an error says that the store is away, or a group nothing but that."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_away(one) for one in error.exceptions)
    return isinstance(error, AWAY_ERRORS)


def _of_error(error: BaseException, log: Any) -> Outcome:
    outcome = _outcome_in(error)
    if outcome is not None:
        return outcome
    if isinstance(error, asyncio.CancelledError):
        return Retry(reason="the handler cancelled itself")
    log.warning("handler_failed", exc_info=error)
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return Retry(reason=f"the handler would have ended the program: {describe(error)}")
    return Retry(reason=describe(error))


def _outcome_in(error: BaseException | None, depth: int = 0) -> Outcome | None:
    if error is None or depth > _MAX_CAUSES:
        return None
    if isinstance(error, Retry | Drop | DeadLetter):
        return _plain(error)
    if not isinstance(error, BaseExceptionGroup):
        return _outcome_in(error.__cause__, depth + 1)
    found = [_outcome_in(one, depth + 1) for one in error.exceptions]
    outcomes = [outcome for outcome in found if outcome is not None]
    if len(outcomes) < len(found):
        return None
    return min(outcomes, key=lambda outcome: _GRAVEST_FIRST.index(type(outcome)))


#: An error that was raised from an outcome is looked into so far.
_MAX_CAUSES = 20

_GRAVEST_FIRST: Sequence[type[Outcome]] = (DeadLetter, Retry, Drop)


def _plain(outcome: Outcome) -> Outcome:
    """Return an outcome with nothing of a user's class in it: a subclass, or a changed member, could do anything."""
    if isinstance(outcome, Ack):
        return _ACK
    if isinstance(outcome, Retry):
        return Retry(after_s=outcome.after_s, reason=outcome.reason)
    return (Drop if isinstance(outcome, Drop) else DeadLetter)(outcome.reason)


def _of_result(result: Any) -> Outcome:
    if result is None:
        return _ACK
    if isinstance(result, Ack | Retry | Drop | DeadLetter):
        return _plain(result)
    # A mistake in the code, which another attempt would repeat.
    return DeadLetter(f"the handler returned {type(result).__name__}: return nothing, or an outcome")


def _of_results(result: Any, count: int) -> Sequence[Outcome] | DeadLetter:
    if result is None:
        return [_ACK] * count
    if not isinstance(result, list | tuple):
        return DeadLetter(f"the handler returned {type(result).__name__}: return None, or a list of outcomes")
    # Past what a subclass makes of it.
    outcomes = [*(list.__iter__(result) if isinstance(result, list) else tuple.__iter__(result))]
    for outcome in outcomes:
        if not isinstance(outcome, Ack | Retry | Drop | DeadLetter):
            return DeadLetter(
                f"the handler returned a list with {type(outcome).__name__} in it: "
                "return an outcome for each event, such as Ack()"
            )
    if len(outcomes) != count:
        return DeadLetter(
            f"the handler returned {len(outcomes)} outcomes for a group of {count}: return one for each, in their order"
        )
    return [_plain(outcome) for outcome in outcomes]
