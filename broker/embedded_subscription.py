"""A consumer's hold on a queue of the embedded transport: claims messages, hands them over, settles them."""

import asyncio
import secrets
import sqlite3
from collections.abc import Awaitable
from functools import partial
from typing import Self

import structlog

from broker.embedded_group_commit import GroupCommit, Level
from broker.embedded_owner import Owner
from broker.embedded_queues import Claimed, Claims, Registration, claim, let_go, settle
from broker.embedded_watch import Watch
from broker.errors import BrokerError
from broker.message import Message
from broker.protocol import OnDelivery
from broker.topology import ConsumerQueues, dead_queue_name, queue_name

_log = structlog.get_logger()


class EmbeddedDelivery:
    """One hand-over; see `broker.protocol.Delivery`."""

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

    def ack(self) -> Awaitable[bool]:
        """Settle for good, with the next group commit. False: the message will be delivered again."""
        return self._subscription.settle(self._claimed.id)


class EmbeddedSubscription:
    """See `broker.protocol.Subscription`. All its state lives on the event loop; at most one claim is under way."""

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
        self.id = secrets.randbits(62)
        self.queue = dead_queue_name(queues.consumer) if dead else queue_name(queues.consumer)
        self._queues = queues
        self._owner = owner
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._commits = commits
        self._watch = watch
        self._unsettled: set[int] = set()
        self._failed_acks: set[int] = set()
        self._claiming: asyncio.Future[Claims] | None = None
        self._may_be_ready = True
        self._is_open = False
        self._is_consuming = False

    @property
    def is_consuming(self) -> bool:
        """Whether this consumer is registered and its last claim did not fail."""
        return self._is_consuming

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound the unsettled deliveries from now on; returns when no claim of the old bound is under way."""
        self._prefetch = prefetch
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        self._claim_if_useful()

    def wake(self) -> None:
        """Look for messages: some may be ready."""
        self._may_be_ready = True
        self._claim_if_useful()

    def settle(self, message_id: int) -> "asyncio.Future[bool]":
        """Delete a message that was handed over. False if it will be delivered again."""
        # One of its own: whoever waits may be cancelled, and the commit happens all the same.
        acked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            settling = self._commits.submit(settle(self.id, message_id), Level.WRITE)
        except BrokerError:
            acked.set_result(False)
            return acked
        settling.add_done_callback(partial(self._on_settled, message_id, acked))
        return acked

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._watch.add(self)
        self._claim_if_useful()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the intake and let go of what is not settled; nothing is handed over afterwards."""
        if not self._is_open:
            return
        self._is_open = False
        self._is_consuming = False
        # From here on the watch lets go of what is still registered, should this be cancelled or fail.
        self._watch.discard(self)
        try:
            await self._commits.submit(let_go([self.id]), Level.WRITE)
        except (BrokerError, sqlite3.Error) as error:
            _log.warning("closing_failed", queue=self.queue, error=str(error))

    def _room(self) -> int:
        return self._prefetch - len(self._unsettled)

    def _claim_if_useful(self) -> None:
        if not self._is_open or self._claiming is not None:
            return
        is_hungry = self._may_be_ready and self._room() > 0
        if self._is_consuming and not is_hungry and not self._failed_acks:
            return
        failed_acks = tuple(self._failed_acks)
        # The first claim makes the queues, which have to last.
        level = Level.WRITE if self._is_consuming else Level.DURABLE
        registration = Registration(id=self.id, owner=self._owner.name, queues=self._queues, queue=self.queue)
        operation = claim(registration, room=self._room, unsettled=failed_acks)
        try:
            self._claiming = self._commits.submit(operation, level)
        except BrokerError:  # the transport is closed
            return
        self._may_be_ready = False
        self._claiming.add_done_callback(partial(self._on_claims, failed_acks))

    def _on_claims(self, failed_acks: tuple[int, ...], claiming: "asyncio.Future[Claims]") -> None:
        self._claiming = None
        error = claiming.exception()
        if error is not None:
            self._may_be_ready = True  # and the watch tries again
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
        self._unsettled.update(claimed.id for claimed in claims.claimed)
        for claimed in claims.claimed:
            self._hand_over(claimed)
        self._claim_if_useful()

    def _hand_over(self, claimed: Claimed) -> None:
        try:
            self._on_delivery(EmbeddedDelivery(claimed, self))
        except Exception:  # noqa: BLE001 - against its contract; the other messages are still handed over
            _log.exception("on_delivery_failed", queue=self.queue, event_id=claimed.message.event_id)

    def _on_settled(self, message_id: int, acked: "asyncio.Future[bool]", settling: "asyncio.Future[bool]") -> None:
        self._unsettled.discard(message_id)
        error = settling.exception()
        if error is not None:
            self._failed_acks.add(message_id)
            _log.warning("ack_failed", queue=self.queue, error=str(error))
        if not acked.done():
            acked.set_result(error is None and settling.result())
        self._claim_if_useful()
