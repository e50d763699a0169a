"""How an authentic callback becomes durable: the broker confirms it in time, or the spool takes it."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

import structlog

from broker import BrokerError, Message
from ingest.config import Budget, Publisher
from ingest.spool import NoSpool, Spool, SpoolError
from telemetry import Throttle, locations, metrics

T = TypeVar("T")

_log = structlog.get_logger()

#: Why publishes fail is logged once in this time.
_TOLD_EVERY_S = 30.0

#: How much later than promised a wait may end: the timer looks this often.
TICK_S = 0.1


#: So many publishes in a row that were not confirmed open the breaker.
FAILURES_TO_OPEN = 3

#: How long a broker may be away before it counts: a channel that is opened anew is back within a moment.
AWAY_S = 0.5

#: While it is open, one callback in this time tries the broker.
PROBE_EVERY_S = 1.0


class Breaker:
    """Watches what becomes of publishes; `confirmations` counts those that the broker confirmed."""

    __slots__ = ("_away_since_s", "_failures", "_next_probe_s", "_transport", "confirmations")

    def __init__(self, transport: Publisher) -> None:
        self._transport = transport
        self._failures = 0
        self._away_since_s: float | None = None
        self._next_probe_s = 0.0
        self.confirmations = 0

    @property
    def is_open(self) -> bool:
        """Whether callbacks go straight to the spool."""
        return self._failures >= FAILURES_TO_OPEN or self._is_away()

    def allows(self) -> bool:
        """Say whether to try the broker with this callback."""
        if self._is_away():
            return False
        if self._failures < FAILURES_TO_OPEN:
            return True
        now_s = time.monotonic()
        if now_s < self._next_probe_s:
            return False
        self._next_probe_s = now_s + PROBE_EVERY_S
        return True

    def confirmed(self) -> None:
        """Take note that the broker confirmed a publish."""
        self.confirmations += 1
        self._failures = 0

    def failed(self) -> None:
        """Take note that a publish was not confirmed."""
        self._failures += 1

    def _is_away(self) -> bool:
        if self._transport.is_ready:
            self._away_since_s = None
            return False
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        return now_s - self._away_since_s >= AWAY_S


#: More live callbacks than this waiting for the broker slow the drain down.
_BUSY = 100


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


class NotKeptError(Exception):
    """Raised when a callback is not known to be durable. It may be, all the same."""


class Durability:
    """Keeps callbacks through `transport` and `spool`.

    `max_unconfirmed` bounds how many wait for the broker at once: more go straight to the spool. Without a
    spool all go to the broker, whatever that is known to do. The spool's drain leaves room for what is live here.
    """

    def __init__(self, transport: Publisher, spool: Spool | NoSpool, *, budget: Budget, max_unconfirmed: int) -> None:
        self._transport = transport
        self._spool = spool
        self._budget = budget
        self._max_unconfirmed = max_unconfirmed
        self._breaker = Breaker(transport)
        #: How many callbacks wait for the broker.
        self._live = 0
        self._log_throttle = Throttle(_TOLD_EVERY_S)
        self._publishing = Deadlines(budget.confirm_s)
        self._spooling = Deadlines(budget.spool_s)
        spool.make_way_for(self)

    @property
    def is_ready(self) -> bool:
        """Whether a callback could be kept now."""
        return self._spool.is_ready or (self._transport.is_ready and not self._breaker.is_open)

    async def keep(self, message: Message, *, deadline_s: float, prefer_spool: bool = False) -> None:
        """Return once `message` is durable. Raises `NotKeptError` if it is not known to be.

        `deadline_s` is when that has to be decided, by the monotonic clock. With `prefer_spool` it is not published:
        what waits for the broker takes memory, what is in the spool does not.
        """
        if self._spool.is_off or (not prefer_spool and self._live < self._max_unconfirmed and self._breaker.allows()):
            self._live += 1
            try:
                is_confirmed = await self._publish(message)
            finally:
                self._live -= 1
            if is_confirmed:
                self._breaker.confirmed()
                return
            if not self._spool.is_off:
                self._breaker.failed()
        try:
            await self._put(message, left_s=deadline_s - time.monotonic())
        except (SpoolError, TimeoutError):
            raise NotKeptError from None
        metrics.CALLBACKS_SPOOLED.inc()

    # What the drain asks, see `ingest.spool.drain.Traffic`.
    @property
    def is_busy(self) -> bool:
        """Whether many callbacks wait for the broker."""
        return self._live > _BUSY

    @property
    def is_failing(self) -> bool:
        """Whether the broker is known not to confirm."""
        return self._breaker.is_open

    @property
    def confirmations(self) -> int:
        """How many publishes the broker has confirmed, the drain's included."""
        return self._breaker.confirmations

    def confirmed(self) -> None:
        """Take note that the broker confirmed a publish of the drain."""
        self._breaker.confirmed()

    def flush(self) -> None:
        """Bring the metrics up to date, and look whether the broker is there also while nobody calls."""
        metrics.BREAKER_OPEN.set(self._breaker.is_open)

    async def _publish(self, message: Message) -> bool:
        began_s = time.monotonic()
        try:
            # A transport bounds its publishes by itself; one that hangs is not waited for either.
            await self._publishing.bound(self._transport.publish(message))
        except (BrokerError, TimeoutError) as error:
            self._tell(error)
            return False
        except Exception as error:  # noqa: BLE001 - the sender can do nothing about it
            _log.error("publishing_failed", error=type(error).__name__, frames=locations(error))
            return False
        finally:
            metrics.PUBLISH_SECONDS.observe(time.monotonic() - began_s)
        return True

    def _tell(self, error: Exception) -> None:
        """Log what the transport says, now and then: while it is in trouble each callback fails."""
        if self._log_throttle.passes():
            _log.warning("publish_not_confirmed", reason=str(error) or "no answer in time")

    async def _put(self, message: Message, *, left_s: float) -> None:
        if left_s >= self._budget.spool_s:
            await self._spooling.bound(self._spool.put(message))
        else:
            async with asyncio.timeout(left_s):
                await self._spool.put(message)
