"""How an authentic callback becomes durable: the broker confirms it in time, or the spool takes it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import structlog

from broker import BrokerError, Message
from ingest.config import Budget, LivePublisher, Publisher
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


class Late(Protocol):
    """Something that waits."""

    def late(self) -> None:
        """Take note that the wait has been too long; it is over."""


class Deadlines:
    """Bounds each wait to `timeout_s` seconds, and not more than `TICK_S` beyond.

    Of thousands of waits a second hardly one times out: two changes of a dictionary are a tenth of what a timer costs
    that is set and cancelled each time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # In the order of their deadlines, as all waits have the same length.
        self._waiting: dict[Late, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, wait: Late, *, now_s: float) -> None:
        """Call `wait.late`, unless it ends in time. `now_s` is now, by the monotonic clock."""
        self._waiting[wait] = now_s + self._timeout_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def end(self, wait: Late) -> None:
        """Let `wait` be over."""
        self._waiting.pop(wait, None)

    async def bound(self, awaitable: Awaitable[T]) -> T:
        """Return what `awaitable` returns; cancel it and raise TimeoutError if it takes too long."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        wait = _TaskWait(task)
        self.begin(wait, now_s=time.monotonic())
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may want the task to end, too.
            if wait.is_late and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self.end(wait)

    def _tick(self) -> None:
        now_s = time.monotonic()
        late = []
        for wait, deadline_s in self._waiting.items():
            if deadline_s > now_s:
                break
            late.append(wait)
        for wait in late:
            del self._waiting[wait]
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick) if self._waiting else None
        for wait in late:
            try:
                wait.late()
            except Exception as error:  # noqa: BLE001 - what one of them does is no other's matter
                _log.error("deadline_failed", error=type(error).__name__, frames=locations(error))


class _TaskWait:
    """A task that waits, to be cancelled when it is late."""

    __slots__ = ("_task", "is_late")

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self._task = task
        self.is_late = False

    def late(self) -> None:
        self.is_late = True
        self._task.cancel()


class NotKeptError(Exception):
    """Raised when a callback is not known to be durable. It may be, all the same."""


#: Gets to know what became of a callback: None if it is durable, `NotKeptError` if it is not known to be. Any other
#: error is a defect.
OnKept: TypeAlias = Callable[[Exception | None], None]


class Durability:
    """Keeps callbacks through `transport` and `spool`.

    `max_unconfirmed` bounds how many wait for the broker at once: more go straight to the spool. Without a
    spool all go to the broker, whatever that is known to do. The spool's drain leaves room for what is live here.
    """

    def __init__(
        self, transport: LivePublisher, spool: Spool | NoSpool, *, budget: Budget, max_unconfirmed: int
    ) -> None:
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
        self._tasks: set[asyncio.Task[None]] = set()
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
        await self._spool_in_time(message, deadline_s=deadline_s)

    def begin(self, message: Message, on_kept: OnKept, *, deadline_s: float, prefer_spool: bool = False) -> None:
        """Begin what `keep` does, without a task where the broker is well; `on_kept` is called once, later."""
        is_well = not (prefer_spool or self._live >= self._max_unconfirmed or self._breaker.is_open)
        if is_well or self._spool.is_off:
            publish = _Publish(self, message, on_kept, deadline_s)
            if self._begin_publish(publish):
                self._live += 1
                self._publishing.begin(publish, now_s=publish.began_s)
                return
        self._start(partial(self.keep, message, deadline_s=deadline_s, prefer_spool=prefer_spool), on_kept)

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

    def _begin_publish(self, publish: "_Publish") -> bool:
        try:
            return self._transport.begin_publish(publish.message, publish.done)
        except Exception as error:  # noqa: BLE001 - then it is tried with care
            _log.error("publishing_failed", error=type(error).__name__, frames=locations(error))
            return False

    def ended(self, publish: "_Publish", error: Exception | None) -> None:
        """Take note of what became of a publish that was begun here; what was not confirmed goes to the spool."""
        self._publishing.end(publish)
        self._live -= 1
        metrics.PUBLISH_SECONDS.observe(time.monotonic() - publish.began_s)
        if error is None:
            self._breaker.confirmed()
            publish.on_kept(None)
            return
        self._tell(error)
        if not self._spool.is_off:
            self._breaker.failed()
        self._start(partial(self._spool_in_time, publish.message, deadline_s=publish.deadline_s), publish.on_kept)

    def _start(self, keep: Callable[[], Coroutine[None, None, None]], on_kept: OnKept) -> None:
        async def run() -> None:
            error = None
            try:
                await keep()
            except Exception as raised:  # noqa: BLE001 - whoever waits is told
                error = raised
            on_kept(error)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, error: Exception) -> None:
        """Log what the transport says, now and then: while it is in trouble each callback fails."""
        if self._log_throttle.passes():
            _log.warning("publish_not_confirmed", reason=str(error) or "no answer in time")

    async def _spool_in_time(self, message: Message, *, deadline_s: float) -> None:
        try:
            await self._put(message, left_s=deadline_s - time.monotonic())
        except (SpoolError, TimeoutError):
            raise NotKeptError from None
        metrics.CALLBACKS_SPOOLED.inc()

    async def _put(self, message: Message, *, left_s: float) -> None:
        if left_s >= self._budget.spool_s:
            await self._spooling.bound(self._spool.put(message))
        else:
            async with asyncio.timeout(left_s):
                await self._spool.put(message)


class _Publish:
    """A publish that was begun without a task."""

    __slots__ = ("_durability", "_is_over", "began_s", "deadline_s", "message", "on_kept")

    def __init__(self, durability: Durability, message: Message, on_kept: OnKept, deadline_s: float) -> None:
        self._durability = durability
        self._is_over = False
        self.message = message
        self.on_kept = on_kept
        self.deadline_s = deadline_s
        self.began_s = time.monotonic()

    def done(self, error: Exception | None) -> None:
        """Take note of what became of it: what is said first counts, and what the transport says too late does not."""
        if not self._is_over:
            self._is_over = True
            self._durability.ended(self, error)

    def late(self) -> None:
        """Wait no longer: a transport bounds its publishes by itself, but one may hang."""
        self.done(TimeoutError())
