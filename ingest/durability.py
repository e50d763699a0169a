"""How an authentic callback becomes durable: the broker confirms it in time, or the spool takes it.

Bounds on many waits of the same length, with one timer for all of them.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

import structlog

from broker import BrokerError, Message
from ingest.config import Publisher
from ingest.spool import Spool, SpoolError
from telemetry import locations, metrics

T = TypeVar("T")

#: How much later than promised a wait may end: the timer looks this often.
TICK_S = 0.1


class Deadlines:
    """Bounds each wait to `timeout_s` seconds, and not more than `TICK_S` beyond.

    Of thousands of waits a second hardly one times out: two changes of a dictionary are a tenth of what a timer costs
    that is set and cancelled each time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # In the order of their deadlines, as all waits have the same length.
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def bound(self, awaitable: Awaitable[T]) -> T:
        """Return what `awaitable` returns; cancel it and raise TimeoutError if it takes too long.

        A task can wait for one thing at a time.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        self._waiting[task] = time.monotonic() + self._timeout_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may want the task to end, too.
            if task in self._expired and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            del self._waiting[task]
            self._expired.discard(task)

    def _tick(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for task, deadline_s in self._waiting.items():
            if deadline_s > now_s:
                break
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)


#: How long the transport has to say that a callback is durable.
PUBLISH_TIMEOUT_S = 2.5

#: How long the spool has to do so, after that.
SPOOL_TIMEOUT_S = 2.5

#: Whatever came before, nobody waits longer than this after a request's headers: its answer leaves within 8 s.
KEPT_BY_S = 7.5

_log = structlog.get_logger()


class NotKeptError(Exception):
    """Raised when a callback is not known to be durable. It may be, all the same."""


class Durability:
    """Keeps callbacks through `transport` and `spool`; without a spool, through the transport alone.

    `max_unconfirmed` bounds how many wait for the broker at once: more go straight to the spool.
    """

    def __init__(self, transport: Publisher, spool: Spool | None, *, max_unconfirmed: int) -> None:
        self._transport = transport
        self._spool = spool
        self._max_unconfirmed = max_unconfirmed
        self._publishing = Deadlines(PUBLISH_TIMEOUT_S)
        self._spooling = Deadlines(SPOOL_TIMEOUT_S)

    @property
    def is_ready(self) -> bool:
        """Whether a callback could be kept now."""
        spool = self._spool
        if spool is None:
            return self._transport.is_ready
        return spool.is_ready or (self._transport.is_ready and not spool.breaker.is_open)

    async def keep(self, message: Message, *, began_s: float, prefer_spool: bool = False) -> None:
        """Return once `message` is durable. Raises `NotKeptError` if it is not known to be.

        `began_s` is when its request's headers were complete, by the monotonic clock. With `prefer_spool` it is not
        published: what waits for the broker takes memory, what is in the spool does not.
        """
        spool = self._spool
        if spool is None:
            if not await self._publish(message):
                raise NotKeptError
            return
        if not prefer_spool and spool.live < self._max_unconfirmed and spool.breaker.allows():
            spool.live += 1
            try:
                is_confirmed = await self._publish(message)
            finally:
                spool.live -= 1
            if is_confirmed:
                spool.breaker.confirmed()
                return
            spool.breaker.failed()
        try:
            await self._put(spool, message, left_s=began_s + KEPT_BY_S - time.monotonic())
        except (SpoolError, TimeoutError):
            raise NotKeptError from None
        metrics.CALLBACKS_SPOOLED.inc()

    async def _publish(self, message: Message) -> bool:
        began_s = time.monotonic()
        try:
            # A transport bounds its publishes by itself; one that hangs is not waited for either.
            await self._publishing.bound(self._transport.publish(message))
        except (BrokerError, TimeoutError):
            return False
        except Exception as error:  # noqa: BLE001 - the sender can do nothing about it; the spool keeps it until somebody does
            _log.error("publishing_failed", error=type(error).__name__, frames=locations(error))
            return False
        finally:
            metrics.PUBLISH_SECONDS.observe(time.monotonic() - began_s)
        return True

    async def _put(self, spool: Spool, message: Message, *, left_s: float) -> None:
        if left_s >= SPOOL_TIMEOUT_S:
            await self._spooling.bound(spool.put(message))
        else:
            async with asyncio.timeout(left_s):
                await spool.put(message)
