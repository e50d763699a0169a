"""Make an outcome durable, then acknowledge: never the other way round."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

import structlog
from msgspec import structs

from broker import Delivery, Message, NotPublishedError, Transport, delay_for_retry, delay_not_shorter
from schemas import UNRECOGNIZED
from workers.api import Consumer, Retry
from workers.job import Bookkeeping, Gathering

#: Between two tries to publish an outcome that the broker did not confirm.
_PUBLISH_AGAIN_S = 0.5

_log = structlog.get_logger()


class Settler:
    """Holds the deliveries of one consumer until each is settled; an async context manager.

    What settles a delivery begins with the call; what has to be published for it is published beside all else.
    Where the broker does not confirm, publishing is tried again until it does: the outcome is known and the delivery
    cannot be let go of before it is kept. Only `hand_back` tries once: an unsettled delivery returns by itself.
    """

    def __init__(
        self, consumer: Consumer, transport: Transport, book: Bookkeeping, retry_delays_s: tuple[float, ...]
    ) -> None:
        self._consumer = consumer
        self._transport = transport
        self._book = book
        self._retry_delays_s = retry_delays_s
        self._held: dict[Delivery, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._acks = Gathering(self._await_acks, name=f"acks of {consumer.name}")
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._acks)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        await self._stack.aclose()

    @property
    def held(self) -> list[Delivery]:
        """The deliveries that are here and not settled."""
        return list(self._held)

    def hold(self, delivery: Delivery) -> None:
        """Take in a delivery that came."""
        self._held[delivery] = time.monotonic()

    def held_since_s(self, delivery: Delivery) -> float:
        """Return when a delivery came, by the monotonic clock."""
        return self._held[delivery]

    async def settled(self, *, but: Delivery | None = None) -> None:
        """Return once nothing is held, `but` apart, and every acknowledgement is made."""
        while any(delivery is not but for delivery in self._held) or not self._acks.is_idle:
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """Publish nothing more: what is not settled stays so."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def ack(self, delivery: Delivery, outcome: str, **details: str) -> None:
        """Acknowledge an event that needs nothing more; `outcome` says why in a word."""
        self._settle(delivery)
        self._book.settled(delivery.message, outcome, **details)

    def retry(self, delivery: Delivery, outcome: Retry) -> None:
        """Let the event wait for its next attempt, or dead-letter it if this was its last."""
        message = delivery.message
        reason = outcome.reason or "the handler asked for another attempt"
        if message.attempt >= self._consumer.attempts:
            self.dead_letter(delivery, reason)
            return
        if outcome.after_s is None:
            delay_s = delay_for_retry(self._retry_delays_s, message.attempt)
        else:
            delay_s = delay_not_shorter(self._retry_delays_s, outcome.after_s)
        again = structs.replace(_failed(message, reason), attempt=message.attempt + 1, crashes=0)
        self._keep(delivery, lambda: self._retry(again, delay_s), "retry", delay_s=delay_s, reason=reason)

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Make the event a dead letter."""
        letter = structs.replace(_failed(delivery.message, reason), crashes=0)
        self._keep(
            delivery, lambda: self._transport.dead_letter(self._consumer.name, letter), "dead_letter", reason=reason
        )

    def wait_for_lease(self, delivery: Delivery, delay_s: float, *, crashes: int) -> None:
        """Look again later: somebody else handles the event, or died with it. It counts as no attempt."""
        again = structs.replace(delivery.message, crashes=crashes)
        self._keep(delivery, lambda: self._retry(again, delay_s), "leased")

    def pass_on(self, delivery: Delivery) -> None:
        """Keep as unrecognized what a newer ingest node understood and this worker does not."""
        foreign = structs.replace(delivery.message, routing_key=UNRECOGNIZED, attempt=1, crashes=0)
        self._keep(delivery, lambda: self._transport.publish(foreign), "passed_on")

    def hand_back(self, delivery: Delivery) -> None:
        """Put the event back into the queue as it was. A return by the broker would count as a crash."""
        self._spawn(self._hand_back(delivery))

    async def hand_back_all(self, deliveries: Iterable[Delivery]) -> None:
        """Hand back several, and return when all are."""
        await asyncio.gather(*(self._hand_back(delivery) for delivery in deliveries))
        await self.settled()

    async def _hand_back(self, delivery: Delivery) -> None:
        same = structs.replace(delivery.message, crashes=delivery.crashes)
        try:
            await self._transport.send(self._consumer.name, same)
        except NotPublishedError:
            self._let_go(delivery)  # still unsettled: the broker delivers it again
        else:
            self._settle(delivery)

    def _keep(
        self, delivery: Delivery, publish: Callable[[], Awaitable[None]], outcome: str, **details: float | str
    ) -> None:
        self._spawn(self._publish_and_settle(delivery, publish, outcome, details))

    async def _publish_and_settle(
        self, delivery: Delivery, publish: Callable[[], Awaitable[None]], outcome: str, details: dict[str, float | str]
    ) -> None:
        while True:
            try:
                await publish()
            except NotPublishedError as error:
                _log.warning("outcome_not_published", consumer=self._consumer.name, error=str(error))
                await asyncio.sleep(_PUBLISH_AGAIN_S)
                await self._transport.wait_ready()
                continue
            break
        self._settle(delivery)
        self._book.settled(delivery.message, outcome, **details)

    def _retry(self, message: Message, delay_s: float) -> Awaitable[None]:
        return self._transport.retry(self._consumer.name, message, delay_s=delay_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The delivery stays unsettled and comes back, counted as a crash: never silent, never lost.
            _log.error("runner_failed", consumer=self._consumer.name, exc_info=error)

    def _settle(self, delivery: Delivery) -> None:
        self._acks.add(delivery.ack())
        self._let_go(delivery)

    def _let_go(self, delivery: Delivery) -> None:
        self._held.pop(delivery, None)
        self._changed.set()

    async def _await_acks(self, acks: list[Awaitable[bool]]) -> None:
        # False: the connection was lost, and the event is delivered again.
        for ack in acks:
            await ack
        self._changed.set()


def _failed(message: Message, reason: str) -> Message:
    now_us = time.time_ns() // 1000
    return structs.replace(
        message,
        first_failed_at_us=message.first_failed_at_us or now_us,
        last_failed_at_us=now_us,
        reason=reason,
    )
