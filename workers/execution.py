"""Deliveries of one consumer, from their arrival to their outcome.

What a consumer makes of a message before its handler sees it.

What a handler's end means: an outcome for each of its events.

From an outcome to a settled delivery: remembered first, in groups, if its consumer remembers.

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

from broker import LEASE_WAIT_S, Delivery, Message, delay_not_shorter
from schemas import UNRECOGNIZED, Event, RecordingEvent, Unrecognized, redecode
from store import Claim, Store, StoreError
from workers.api import Ack, Consumer, Context, DeadLetter, Drop, Outcome, Retry
from workers.job import Bookkeeping, Gathering
from workers.memory import Memory
from workers.settling import Settler
from workers.slots import Ending, Interruption, Slots
from workers.store_watch import AWAY_ERRORS, StoreWatch


class Work(Struct, frozen=True):
    """A delivery that a handler can take."""

    delivery: Delivery
    event: Event
    context: Context


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


def work_of(delivery: Delivery, event: Event, *, consumer: str, store: Store) -> Work:
    """Return a delivery with all that its handler is told."""
    message = delivery.message
    context = Context(
        consumer=consumer,
        event_id=message.event_id,
        attempt=message.attempt,
        received_at_us=message.received_at_us,
        body=message.body,
        trace=message.trace,
        store=store,
    )
    return Work(delivery, event, context)


_MAX_REASON_CHARACTERS = 500

_log = structlog.get_logger()


class GroupFailure(Struct, frozen=True):
    """A call for several events that failed as a whole: each is to be run again alone."""

    reason: str


def judge(consumer: Consumer, contexts: Sequence[Context], ending: Ending) -> Sequence[Outcome] | GroupFailure:
    """Return the outcome of each event of a call that was not stopped, in their order, and log what is unusual.

    Raises one of `AWAY_ERRORS` if that is what the handler raised: the events are fine and their store is away.
    """
    log = contexts[0].log if len(contexts) == 1 else _log.bind(consumer=consumer.name, events=len(contexts))
    if ending.is_left_behind:
        log.warning("handler_left_behind", timeout_s=consumer.timeout_s)
    judged: Sequence[Outcome] | Outcome
    if ending.interruption is Interruption.TIMED_OUT:
        judged = Retry(reason=f"no answer within {consumer.timeout_s:g} s")
    elif ending.error is not None:
        judged = _of_error(ending.error, log)
    elif consumer.batch is None:
        judged = _of_result(ending.result)
    else:
        judged = _of_results(ending.result, len(contexts))
    if isinstance(judged, Sequence):
        return judged
    if len(contexts) == 1:
        return [judged]
    reason = "" if isinstance(judged, Ack) else judged.reason
    log.info("group_failed", reason=reason, then="each event is run alone")
    return GroupFailure(reason)


def describe(error: BaseException) -> str:
    """Return an error as one line that a person can act on: its type and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}"[:_MAX_REASON_CHARACTERS] if message else type(error).__name__


def _of_error(error: BaseException, log: Any) -> Outcome:
    if isinstance(error, Retry | Drop | DeadLetter):
        return error
    if isinstance(error, AWAY_ERRORS):
        raise error
    if isinstance(error, asyncio.CancelledError):
        return Retry(reason="the handler cancelled itself")
    log.warning("handler_failed", exc_info=error)
    return Retry(reason=describe(error))


def _of_result(result: Any) -> Outcome:
    if result is None:
        return Ack()
    if isinstance(result, Ack | Retry | Drop | DeadLetter):
        return result
    # A mistake in the code, which another attempt would repeat.
    return DeadLetter(f"the handler returned {type(result).__name__}: return nothing, or an outcome")


def _of_results(result: Any, count: int) -> Sequence[Outcome] | DeadLetter:
    if result is None:
        return [Ack()] * count
    if not isinstance(result, list | tuple):
        return DeadLetter(f"the handler returned {type(result).__name__}: return None, or a list of outcomes")
    for outcome in result:
        if not isinstance(outcome, Ack | Retry | Drop | DeadLetter):
            return DeadLetter(
                f"the handler returned a list with {type(outcome).__name__} in it: "
                "return an outcome for each event, such as Ack()"
            )
    if len(result) != count:
        return DeadLetter(
            f"the handler returned {len(result)} outcomes for a group of {count}: return one for each, in their order"
        )
    return result


class Concluding:
    """Brings work to its end; an async context manager. `running` loses the events that came to theirs.

    Leaving cuts short what waits for the store, and leaves it unsettled.
    """

    def __init__(self, consumer: Consumer, settler: Settler, memory: Memory | None, running: dict[str, int]) -> None:
        self._consumer = consumer
        self._settler = settler
        self._memory = memory
        self._running = running
        self._completing = Gathering(self._complete, name=f"completions of {consumer.name}")
        self._releasing = Gathering(self._release, name=f"releases of {consumer.name}")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._memory is not None:
            await self._stack.enter_async_context(self._completing)
            await self._stack.enter_async_context(self._releasing)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def conclude(self, work: Work, outcome: Outcome) -> None:
        """Let an outcome take effect, once the store remembers what it has to."""
        if self._memory is None:
            self._settle(work, outcome)
        elif isinstance(outcome, Ack | Drop):
            self._completing.add((work, outcome))
        else:
            self._releasing.add((work, outcome))

    def give_back(self, work: Work) -> None:
        """Put an event back into the queue as if nobody had seen it."""
        if self._memory is None:
            self._settle(work, None)
        else:
            self._releasing.add((work, None))

    async def _complete(self, concluded: list[tuple[Work, Outcome]]) -> None:
        """Remember completions in one transaction, then acknowledge."""
        if self._memory is not None:
            try:
                await self._memory.complete([work.context.event_id for work, _ in concluded])
            except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
                if len(concluded) > 1:
                    for one in concluded:
                        await self._complete([one])
                    return
                _log.exception("completion_failed", consumer=self._consumer.name)
                concluded = [(work, Retry(reason=describe(error))) for work, _ in concluded]
        for work, outcome in concluded:
            self._settle(work, outcome)

    async def _release(self, concluded: list[tuple[Work, Outcome | None]]) -> None:
        """Let go of leases in one transaction, then publish what became of the events."""
        if self._memory is not None:
            try:
                await self._memory.release([work.context.event_id for work, _ in concluded])
            except Exception:  # noqa: BLE001 - leases run out by themselves
                _log.exception("release_failed", consumer=self._consumer.name)
        for work, outcome in concluded:
            self._settle(work, outcome)

    def _settle(self, work: Work, outcome: Outcome | None) -> None:
        self._running.pop(work.context.event_id, None)
        match outcome:
            case Ack():
                self._settler.ack(work.delivery, "ack")
            case Drop():
                self._settler.ack(work.delivery, "drop", reason=outcome.reason)
            case DeadLetter():
                self._settler.dead_letter(work.delivery, outcome.reason)
            case Retry():
                self._settler.retry(work.delivery, outcome)
            case None:
                self._settler.hand_back(work.delivery)


#: At this many crashes a delivery is a dead letter.
FATAL_CRASHES = 6

#: A handler is called with a delivery only if that can be settled this long after it came, time-out included: RabbitMQ
#: closes the channel of one that is not settled within 30 minutes.
SETTLED_WITHIN_S = 1750.0

_ACK = Ack()


class Handling:
    """Handles the deliveries that the settler holds; an async context manager.

    `on_away` is called when the store that the consumer needs is away: what was not begun is handed back then, unless
    the consumer drains. Leaving stops it.
    """

    def __init__(
        self,
        consumer: Consumer,
        settler: Settler,
        book: Bookkeeping,
        memory: Memory | None,
        *,
        store: Store,
        store_watch: StoreWatch,
        retry_delays_s: tuple[float, ...],
        on_away: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._settler = settler
        self._book = book
        self._memory = memory
        self._store = store
        self._store_watch = store_watch
        self._lease_wait_s = delay_not_shorter(retry_delays_s, LEASE_WAIT_S)
        self._on_away = on_away
        self._needs_store = memory is not None
        self._is_draining = False
        self._arrived: deque[Delivery] = deque()
        self._ready: deque[Work] = deque()
        self._alone: deque[tuple[Work, str]] = deque()
        #: The events that are here, each with the crashes that it came with.
        self._running: dict[str, int] = {}
        self._claiming = Gathering(self._claim, name=f"claims of {consumer.name}")
        self._slots = Slots[list[Work]](
            consumer, take=self._take, is_waiting=self._is_waiting, arguments=self._arguments, ended=self._ended
        )
        self._concluding = Concluding(consumer, settler, memory, self._running)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._concluding)
        if self._memory is not None:
            await self._stack.enter_async_context(self._claiming)
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

    def is_running(self, event_id: str) -> bool:
        """Whether an event is being handled here now."""
        return event_id in self._running

    def begin_draining(self) -> None:
        """Try what is here whether the store answers or not."""
        self._is_draining = True
        self._slots.wake()

    def accept(self, delivery: Delivery) -> None:
        """Handle a delivery as soon as there is a slot for it."""
        if self._memory is None:
            self._arrived.append(delivery)
            self._slots.wake()
        else:
            self._claiming.add(delivery)

    def hand_back_waiting(self) -> None:
        """Hand back what was not begun."""
        while self._arrived:
            self._settler.hand_back(self._arrived.popleft())
        while self._ready:
            self._concluding.give_back(self._ready.popleft())
        while self._alone:
            self._concluding.give_back(self._alone.popleft()[0])

    async def release_all(self, deliveries: Sequence[Delivery]) -> None:
        """Let go of the leases of what is going to be handed back."""
        if self._memory is not None and deliveries:
            await self._memory.release([delivery.message.event_id for delivery in deliveries])

    # before the handler ----------------------------------------------------------------------------------------------
    def _admit(self, delivery: Delivery) -> Work | None:
        """Decode a delivery; settle it if the handler need not see it."""
        message = delivery.message
        event = event_of(message)
        if event is None:
            self._settler.pass_on(delivery)
        elif not isinstance(event, self._consumer.event_types):
            # Bound to it once, before its annotation was changed.
            self._settler.ack(delivery, "unwanted", event_type=message.routing_key)
        elif message.event_id in self._running:
            # The connection was lost and the event delivered again. Nobody died with it: its handler runs here.
            crashes = min(delivery.crashes, self._running[message.event_id])
            self._settler.wait_for_lease(delivery, self._lease_wait_s, crashes=crashes)
        else:
            self._running[message.event_id] = delivery.crashes
            return work_of(delivery, event, consumer=self._consumer.name, store=self._store)
        return None

    async def _claim(self, deliveries: list[Delivery]) -> None:
        """Claim events in one transaction, so that nobody else handles them meanwhile."""
        works = [work for delivery in deliveries if (work := self._admit(delivery)) is not None]
        if works and not self.must_wait:
            await self._claim_works(works)
        elif works:
            self._find_away(works)

    async def _claim_works(self, works: list[Work]) -> None:
        assert self._memory is not None  # noqa: S101 - only a consumer that remembers claims
        try:
            claims = await self._memory.claim([work.context.event_id for work in works])
        except StoreError:
            self._find_away(works)
        except Exception as error:  # noqa: BLE001 - logged below; one bad event must not fail its neighbours
            if len(works) > 1:
                for work in works:
                    await self._claim_works([work])
                return
            _log.exception("claim_failed", consumer=self._consumer.name, event_id=works[0].context.event_id)
            self._concluding.conclude(works[0], Retry(reason=describe(error)))
        else:
            for work in works:
                self._on_claim(work, claims[work.context.event_id])

    def _on_claim(self, work: Work, claim: Claim) -> None:
        if claim is Claim.CLAIMED:
            self._ready.append(work)
            self._slots.wake()
            return
        self._running.pop(work.context.event_id, None)
        if claim is Claim.COMPLETED:
            self._settler.ack(work.delivery, "duplicate")
        else:
            self._settler.wait_for_lease(work.delivery, self._lease_wait_s, crashes=work.delivery.crashes)

    def _find_away(self, works: Sequence[Work]) -> None:
        self._needs_store = True
        self._store_watch.report_away()
        for work in works:
            self._concluding.give_back(work)
        self._on_away()

    # the handler -----------------------------------------------------------------------------------------------------
    def _is_waiting(self) -> bool:
        return bool(self._arrived or self._ready or self._alone)

    def _take(self) -> list[Work] | None:
        """Return what the handler is called with next: what waits anyway, at most as much as it takes."""
        if not self._is_waiting():
            return None
        if self.must_wait:
            self.hand_back_waiting()
            self._on_away()
            return None
        came_after_s = time.monotonic() + self._consumer.timeout_s - SETTLED_WITHIN_S
        while self._alone:
            work, reason = self._alone.popleft()
            if self._may_begin(work, came_after_s):
                return self._begin([work])
            self._concluding.conclude(work, Retry(reason=reason))
        most = self._consumer.batch or 1
        group: list[Work] = []
        while len(group) < most and (waiting := self._next()) is not None:
            if waiting.delivery.crashes >= FATAL_CRASHES:
                self._concluding.conclude(waiting, DeadLetter("worker crashed"))
            elif self._may_begin(waiting, came_after_s):
                group.append(waiting)
            else:
                self._concluding.give_back(waiting)
        return self._begin(group) if group else None

    def _may_begin(self, work: Work, came_after_s: float) -> bool:
        """Say whether a delivery can still be settled in time, and whether its event is still ours.

        After this process stood still another may have handled the event, which was claimed before.
        """
        since_s = self._settler.held_since_s(work.delivery)
        return since_s > came_after_s and (self._memory is None or self._memory.leases.hold(since_s))

    def _next(self) -> Work | None:
        if self._ready:
            return self._ready.popleft()
        while self._arrived:
            work = self._admit(self._arrived.popleft())
            if work is not None:
                return work
        return None

    def _begin(self, group: list[Work]) -> list[Work]:
        self._book.begun([work.delivery.message for work in group])
        return group

    def _arguments(self, group: list[Work]) -> tuple[Any, ...]:
        if self._consumer.batch is None:
            return group[0].event, group[0].context
        return ([(work.event, work.context) for work in group],)

    def _ended(self, group: list[Work], ending: Ending) -> None:
        self._book.ended(ending.took_s)
        if ending.result is None and ending.error is None and ending.interruption is None:
            for work in group:
                self._concluding.conclude(work, _ACK)
            return
        if ending.interruption is Interruption.STOPPED:
            return  # who stopped it hands it back
        try:
            outcomes = judge(self._consumer, [work.context for work in group], ending)
        except AWAY_ERRORS:
            self._find_away(group)
            return
        if isinstance(outcomes, GroupFailure):
            self._alone.extend((work, outcomes.reason) for work in group)
            self._slots.wake()
            return
        for work, outcome in zip(group, outcomes, strict=True):
            self._concluding.conclude(work, outcome)
