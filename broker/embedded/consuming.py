"""A consumer's hold on a queue of the embedded transport: claims messages, hands them over, settles them."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Collection, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import structlog

from broker.api import BrokerError, Message, OnDelivery
from broker.embedded.commit import Claimed, Committed, GroupCommit, Level, Taker, Transaction
from broker.embedded.database import Owner
from broker.embedded.doorbell import Doorbell
from broker.embedded.queues import (
    Claims,
    Registration,
    Sight,
    claim,
    give_space_back,
    let_go,
    look,
    now_us,
    settle,
    tidy,
)
from broker.topology import ConsumerQueues, dead_queue_name, queue_name

_log = structlog.get_logger()

#: How long a ring that got lost, or what was done by something that does not ring, may go unnoticed.
LOOK_EVERY_S = 5.0

#: The same where others cannot ring, or not be heard, and while something fails.
_LOOK_UNHEARD_EVERY_S = 0.05

#: While others ring without end, what they rang for is taken together.
_WAKES_APART_S = 0.005

#: Most rings are for messages, which are claimed at once. Looking costs more than that, and what else a ring may be
#: for, a retry or a new consumer, can wait so long.
_LOOKS_APART_S = 0.1


class Watched(Protocol):
    """A subscription, as far as it is told about messages."""

    id: int
    queue: str

    @property
    def is_consuming(self) -> bool:
        """Whether its last claim went well."""

    def wake(self) -> None:
        """Look for messages: some may be ready."""

    async def close(self) -> None:
        """Let go of everything."""


class Watch:
    """Knows, for as long as anybody has subscribed, when something changed in the file; wakes who waits for it.

    What this process commits it is told; other processes ring; and a look at the file shows what the others did, when
    the next retry is due, and who has ended. `look_every_s` bounds the time between two looks.
    """

    def __init__(self, commits: GroupCommit, owner: Owner, folder: Path, *, look_every_s: float) -> None:
        self._commits = commits
        self._owner = owner
        self._look_every_s = look_every_s
        self._watched: set[Watched] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self._wake_up = asyncio.Event()
        self._must_look = self._was_rung = False
        self._bell = Doorbell(folder, on_ring=self._on_ring, on_end=self._want_look)
        self._next_look_us = 0

    @property
    def held(self) -> frozenset[int]:
        """The ids of the subscriptions that are alive in this transport."""
        return frozenset(watched.id for watched in self._watched)

    def add(self, watched: Watched) -> None:
        """Begin to wake a subscription."""
        self._watched.add(watched)
        if self._task is None:
            # Before the subscription is in the file: whoever finds it there can ring.
            self._bell.hang(self._owner.name)
            self._task = asyncio.create_task(self._keep_looking())

    def discard(self, watched: Watched) -> None:
        """Stop waking a subscription. What it holds returns to its queue."""
        self._watched.discard(watched)
        self._want_look()

    def look_soon(self) -> None:
        """Look, and wake all, in a moment: something failed."""
        asyncio.get_running_loop().call_later(_LOOK_UNHEARD_EVERY_S, self._want_look)

    def on_commit(self, committed: Committed) -> None:
        """Wake the subscriptions of the queues that a commit of this process touched, here and elsewhere."""
        for taker, claimed in committed.handed_over.items():
            taker.deliver(claimed)
        for watched in tuple(self._watched):
            if watched.queue in committed.touched:
                watched.wake()
        self._bell.ring(committed.listeners - {self._owner.name})
        if committed.due_at_us is not None and committed.due_at_us < self._next_look_us:
            self._want_look()

    async def close(self) -> None:
        """Close all subscriptions and stop looking."""
        for watched in tuple(self._watched):
            await watched.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._bell.close()

    def _on_ring(self) -> None:
        self._was_rung = True
        self._wake_up.set()

    def _want_look(self) -> None:
        self._must_look = True
        self._wake_up.set()

    async def _keep_looking(self) -> None:
        version = 0
        while True:
            was_asked = self._must_look or self._was_rung
            self._must_look = self._was_rung = False
            # A retry that is inserted from here on is either seen or asks for another look.
            self._next_look_us = now_us() + round(self._look_every_s * 1e6)
            sight = await self._look(wake=was_asked)
            was_woken = was_asked and sight is not None
            if not was_woken and (sight is None or sight.version != version or not self._is_well()):
                self._wake_all()
            self._bell.hang(self._owner.name)
            if sight is not None:
                version = sight.version
                self._bell.know(sight.others)
            pause_s = self._pause_s(sight)
            self._next_look_us = min(self._next_look_us, now_us() + round(pause_s * 1e6))
            await self._rest(pause_s)

    async def _rest(self, pause_s: float) -> None:
        """Return when it is time for the next look; wake all meanwhile when others ring."""
        looked_s = woken_s = time.monotonic()
        until_s = looked_s + pause_s
        while not self._must_look and (left_s := until_s - time.monotonic()) > 0:
            if not self._was_rung:
                self._wake_up.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._wake_up.wait()
            elif time.monotonic() > looked_s + _LOOKS_APART_S:
                break
            else:
                await asyncio.sleep(woken_s + _WAKES_APART_S - time.monotonic())
                self._was_rung = False
                woken_s = time.monotonic()
                self._wake_all()
                until_s = min(until_s, looked_s + _LOOKS_APART_S)
        await asyncio.sleep(woken_s + _WAKES_APART_S - time.monotonic())

    async def _look(self, *, wake: bool) -> Sight | None:
        """Look, and do what is to be done; None if that failed, which is logged once.

        With `wake`, wake all meanwhile: what they claim is at least as new as what is seen.
        """
        try:
            looking = self._commits.submit(look(self._owner, self.held), Level.READ)
            if wake:
                self._wake_all()
            sight = await looking
            if sight.abandoned or (sight.due_at_us is not None and sight.due_at_us <= now_us()):
                await self._commits.submit(tidy(self._owner, self.held), Level.WRITE)
            if sight.wastes_space:
                await self._commits.submit(give_space_back, Level.WRITE)
        except Exception as error:  # noqa: BLE001 - whatever it was, retries must not wait for ever
            if not self._is_failing:
                _log.warning("embedded_transport_failed", error=str(error))
            self._is_failing = True
            return None
        self._is_failing = False
        return sight

    def _is_well(self) -> bool:
        return not self._is_failing and all(watched.is_consuming for watched in self._watched)

    def _pause_s(self, sight: Sight | None) -> float:
        """Return how long to wait for the next look, unless somebody asks for it: until the next retry is due."""
        if sight is None or sight.wastes_space or not self._is_well() or not self._bell.is_heard:
            pause_s = min(_LOOK_UNHEARD_EVERY_S, self._look_every_s)
        else:
            pause_s = self._look_every_s
        if sight is not None and sight.due_at_us is not None:
            pause_s = min(pause_s, (sight.due_at_us - now_us()) / 1e6)
        return max(0.0, pause_s)

    def _wake_all(self) -> None:
        for watched in tuple(self._watched):
            watched.wake()


class EmbeddedDelivery:
    """One hand-over; see `broker.api.Delivery`."""

    __slots__ = ("_claimed", "_subscription")

    def __init__(self, claimed: Claimed, subscription: "EmbeddedSubscription") -> None:
        self._claimed = claimed
        self._subscription = subscription

    @property
    def message(self) -> Message:
        """The message."""
        return self._claimed.message

    @property
    def crashes(self) -> int:
        """How often this message was handed over before and came back."""
        return self._claimed.deliveries + self._claimed.message.crashes

    @property
    def taken_out(self) -> str:
        """Empty: nothing expires here."""
        return ""

    def ack(self) -> Awaitable[bool]:
        """Settle for good, with the next group commit. False: the message will be delivered again."""
        return self._subscription.settle(self._claimed.id)


def _nothing(_: Transaction) -> None:
    """Tell when all that was submitted before is done."""


class _Acks:
    """The messages that a subscription acknowledges in one turn of the event loop, and what became of them."""

    __slots__ = ("ended", "message_ids", "returned")

    def __init__(self) -> None:
        self.message_ids: list[int] = []
        self.returned: Collection[int] = ()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, returned: Collection[int]) -> None:
        """Tell those who wait; `returned` will be delivered again."""
        self.returned = returned
        self.ended.set_result(None)


class _Ack:
    """One of them; awaited, says whether it is settled for good."""

    __slots__ = ("_acks", "_message_id")

    def __init__(self, acks: _Acks, message_id: int) -> None:
        self._acks = acks
        self._message_id = message_id

    def __await__(self) -> Generator[Any, None, bool]:
        if not self._acks.ended.done():
            # Whoever waits may be cancelled, and the others wait on.
            yield from asyncio.shield(self._acks.ended).__await__()
        return self._message_id not in self._acks.returned


class EmbeddedSubscription:
    """See `broker.api.Subscription`. All its state lives on the event loop; at most one claim is under way."""

    def __init__(
        self,
        queues: ConsumerQueues,
        on_delivery: OnDelivery,
        *,
        prefetch: int,
        dead: bool,
        owner: Owner,
        commits: GroupCommit,
        watch: Watch,
    ) -> None:
        self.queue = dead_queue_name(queues.consumer) if dead else queue_name(queues.consumer)
        self._taker = taker = Taker(queue=self.queue, prefetch=prefetch, deliver=self._take)
        self.id = taker.id
        self._queues = queues
        self._owner = owner
        self._on_delivery = on_delivery
        self._commits = commits
        self._watch = watch
        self._unsettled: set[int] = set()
        self._failed_acks: set[int] = set()
        self._acks: _Acks | None = None
        self._claiming: asyncio.Future[Claims] | None = None
        self._may_be_ready = True
        self._is_open = False
        self._is_consuming = False

    @property
    def is_consuming(self) -> bool:
        """Whether this consumer is registered and its last claim did not fail."""
        return self._is_consuming

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound the unsettled deliveries from now on; returns when nothing of the old bound is under way."""
        is_lower = prefetch < self._taker.prefetch
        self._taker.prefetch = prefetch
        if is_lower:
            # What was handed over by then has come before this ends. If it fails, nothing comes any more.
            with suppress(BrokerError, sqlite3.Error):
                await self._commits.submit(_nothing, Level.READ)
        self._claim_if_useful()

    def wake(self) -> None:
        """Look for messages: some may be ready."""
        self._may_be_ready = True
        self._taker.has_all = False
        self._claim_if_useful()

    def settle(self, message_id: int) -> Awaitable[bool]:
        """Delete a message that was handed over, with all others of this turn. False if it will be delivered again."""
        if self._acks is None:
            self._acks = _Acks()
            asyncio.get_running_loop().call_soon(self._settle)
        self._acks.message_ids.append(message_id)
        return _Ack(self._acks, message_id)

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._watch.add(self)
        self._commits.takers.add(self._taker)
        self._claim_if_useful()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop deliveries and let go of what is not settled; nothing is handed over afterwards."""
        if not self._is_open:
            return
        self._is_open = False
        self._is_consuming = False
        self._settle()
        self._commits.takers.discard(self._taker)
        # From here on the watch lets go of what is still registered, should this be cancelled or fail.
        self._watch.discard(self)
        try:
            await self._commits.submit(let_go([self.id]), Level.WRITE)
        except (BrokerError, sqlite3.Error) as error:
            _log.warning("closing_failed", queue=self.queue, error=str(error))

    def _claim_if_useful(self) -> None:
        if not self._is_open or self._claiming is not None:
            return
        is_hungry = self._may_be_ready and self._taker.room > 0
        if self._is_consuming and not is_hungry and not self._failed_acks:
            return
        failed_acks = tuple(self._failed_acks)
        # The first claim makes the queues, which have to last.
        level = Level.WRITE if self._is_consuming else Level.DURABLE
        registration = Registration(owner=self._owner.name, queues=self._queues, taker=self._taker)
        try:
            self._claiming = self._commits.submit(claim(registration, unsettled=failed_acks), level)
        except BrokerError:  # the transport is closed
            return
        self._may_be_ready = False
        self._claiming.add_done_callback(partial(self._on_claims, failed_acks))

    def _on_claims(self, failed_acks: tuple[int, ...], claiming: "asyncio.Future[Claims]") -> None:
        self._claiming = None
        error = claiming.exception()
        if error is not None:
            self._may_be_ready = True
            self._taker.has_all = False
            self._watch.look_soon()  # and try again
            if self._is_open and self._is_consuming:
                _log.warning("claim_failed", queue=self.queue, error=str(error))
            self._is_consuming = False
            return
        if not self._is_open:
            return
        self._is_consuming = True
        self._failed_acks.difference_update(failed_acks)
        claims = claiming.result()
        self._may_be_ready |= claims.may_leave_more
        self._take(claims.claimed)
        self._claim_if_useful()

    def _take(self, taken: Sequence[Claimed]) -> None:
        if not self._is_open:
            return
        before = len(self._unsettled)
        self._unsettled.update([claimed.id for claimed in taken])
        # What comes again although it is here was put back by others: it takes room once.
        self._taker.settled += before + len(taken) - len(self._unsettled)
        for claimed in taken:
            self._hand_over(claimed)

    def _hand_over(self, claimed: Claimed) -> None:
        try:
            self._on_delivery(EmbeddedDelivery(claimed, self))
        except Exception:  # noqa: BLE001 - against its contract; the other messages are still handed over
            _log.exception("on_delivery_failed", queue=self.queue, event_id=claimed.message.event_id)

    def _settle(self) -> None:
        acks, self._acks = self._acks, None
        if acks is None:
            return
        try:
            self._commits.begin(settle(self.id, acks.message_ids), Level.WRITE, partial(self._on_settled, acks))
        except BrokerError:  # the transport is closed
            acks.end(acks.message_ids)

    def _on_settled(self, acks: _Acks, returned: frozenset[int] | None, error: Exception | None) -> None:
        settled = self._unsettled.intersection(acks.message_ids)
        self._unsettled -= settled
        self._taker.settled += len(settled)
        if returned is None:
            self._failed_acks.update(acks.message_ids)
            _log.warning("ack_failed", queue=self.queue, error=str(error))
        acks.end(acks.message_ids if returned is None else returned)
        self._claim_if_useful()
