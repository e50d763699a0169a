"""Deliveries of one consumer, from their arrival to their outcome.

What became of an event is kept before its delivery is acknowledged: a success is remembered, a retry or dead letter
is published and confirmed. Whatever dies in between, the event is delivered again.

Everything is done for as many as wait anyway: claiming them, calling the handler, remembering and acknowledging them.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import structlog

from broker import LEASE_WAIT_S, Delivery, rung_not_shorter
from store import Claim, Store, StoreError
from workers.admission import Work, event_of, work_of
from workers.bookkeeping import Bookkeeping
from workers.concluding import Concluding
from workers.consumer import Consumer
from workers.gathering import Gathering
from workers.judging import GroupFailure, describe, judge
from workers.lanes import Ending, Interruption, Lanes
from workers.memory import Memory
from workers.outcomes import Ack, DeadLetter, Retry
from workers.settling import Settler
from workers.store_watch import AWAY_ERRORS, StoreWatch

#: At this many crashes a delivery is a dead letter.
FATAL_CRASHES = 6

#: A handler is called with a delivery only if that can be settled this long after it came, time-out included: RabbitMQ
#: closes the channel of one that is not settled within 30 minutes.
SETTLED_WITHIN_S = 1750.0

_ACK = Ack()

_log = structlog.get_logger()


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
        self._lease_wait_s = rung_not_shorter(retry_delays_s, LEASE_WAIT_S)
        self._on_away = on_away
        self._needs_store = memory is not None
        self._is_draining = False
        self._arrived: deque[Delivery] = deque()
        self._ready: deque[Work] = deque()
        self._alone: deque[tuple[Work, str]] = deque()
        #: The events that are here, each with the crashes that it came with.
        self._running: dict[str, int] = {}
        self._claiming = Gathering(self._claim, name=f"claims of {consumer.name}")
        self._lanes = Lanes[list[Work]](
            consumer, take=self._take, is_waiting=self._is_waiting, arguments=self._arguments, ended=self._ended
        )
        self._concluding = Concluding(consumer, settler, memory, self._running)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._concluding)
        if self._memory is not None:
            await self._stack.enter_async_context(self._claiming)
        self._stack.push_async_callback(self._lanes.stop)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Interrupt what runs, and leave unsettled what is not concluded."""
        await self._stack.aclose()

    @property
    def running(self) -> int:
        """How many calls of the handler run now."""
        return self._lanes.running

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
        self._lanes.wake()

    def accept(self, delivery: Delivery) -> None:
        """Handle a delivery as soon as there is a lane for it."""
        if self._memory is None:
            self._arrived.append(delivery)
            self._lanes.wake()
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
            self._lanes.wake()
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
            self._lanes.wake()
            return
        for work, outcome in zip(group, outcomes, strict=True):
            self._concluding.conclude(work, outcome)
