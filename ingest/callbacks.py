"""One callback, from its request to its answer."""

import asyncio
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeAlias

import structlog
from aiohttp import web
from prometheus_client import Counter

from broker import Message
from ingest.admission import Admitted, admit, admit_anything, admit_plain
from ingest.config import IngestConfig
from ingest.durability import Durability, NotKeptError
from ingest.keys import CallbackKeys, KeyRing
from ingest.refusals import NOT_KEPT, Refusal, RefusalLog, RefusedError
from ingest.rejected import Rejected, RejectedWriter
from ingest.request import Answers, InFlightLimit, Reservation, asks_for_health, check_headers, read_body, traceparent
from schemas import EVENT_TYPES, UNRECOGNIZED
from telemetry import Throttle, locations, metrics

_log = structlog.get_logger()


def message_of(admitted: Admitted, *, received_at_us: int, trace: str) -> Message:
    """Return the message of an authentic callback, without Sign and ExpireTime."""
    return Message(
        body=admitted.body,
        event_id=admitted.event_id,
        routing_key=admitted.routing_key,
        received_at_us=received_at_us,
        trace=trace,
    )


#: The sender's last try of a callback begins 75 s after the first, and takes up to 10 s:
#: https://www.tencentcloud.com/document/product/1176/55569
LATE_S = 120

#: So many pairs are known, at least; the oldest are forgotten.
REMEMBERED = 8192

_LATE_US = LATE_S * 1_000_000


class SignatureReuse:
    """Counts what was signed with a pair that had signed something else before.

    `soon` within `LATE_S` of its first use, `late` after that.

    Whoever has seen one pair of ExpireTime and Sign can sign callbacks of his own. But Sign is made of the key and
    ExpireTime alone, so the sender itself uses one pair for everything that it signs in the same second, and repeats it
    for as long as it tries, 85 s at most: that is counted apart from what comes later. Nothing is refused for it. A
    pair is told by its SdkAppId and ExpireTime; no Sign is kept.
    """

    __slots__ = ("_before", "_late", "_now", "_soon", "late", "soon")

    def __init__(self) -> None:
        # First use and event_id of each pair, in two generations: forgetting costs nothing per pair.
        self._now: dict[tuple[int, bytes], tuple[int, str]] = {}
        self._before: dict[tuple[int, bytes], tuple[int, str]] = {}
        self.soon = 0
        self.late = 0
        self._soon = metrics.CALLBACKS_PAIR_REUSED.labels(when="soon")
        self._late = metrics.CALLBACKS_PAIR_REUSED.labels(when="late")

    def note(self, pair: tuple[int, bytes], event_id: str, received_at_us: int) -> None:
        """Take note of an authentic callback: `pair` is its SdkAppId and ExpireTime as sent."""
        first = self._now.get(pair) or self._before.get(pair)
        if first is None:
            if len(self._now) >= REMEMBERED:
                self._before, self._now = self._now, {}
            self._now[pair] = received_at_us, event_id
        elif first[1] != event_id:
            if received_at_us - first[0] > _LATE_US:
                self.late += 1
                self._late.inc()
            else:
                self.soon += 1
                self._soon.inc()


#: At most one line in this time, and no more names in it: a sender that has changed changes every callback.
_PARTLY_TOLD_EVERY_S = 1.0
_NAMES_TOLD = 10


class PartlyUnderstood:
    """Counts callbacks with members that are not what the vendor documents, and logs which members those are."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._throttle = Throttle(_PARTLY_TOLD_EVERY_S)

    def note(self, message: Message, odd_members: Sequence[str]) -> None:
        """Take note of an event that is kept without these members."""
        metrics.CALLBACKS_PARTLY_UNDERSTOOD.inc()
        if self._throttle.passes():
            self._log.warning(
                "callback_partly_understood",
                event_type=message.routing_key,
                event_id=message.event_id,
                odd_members=odd_members[:_NAMES_TOLD],
                odd=len(odd_members),
            )


#: A larger body that is not plain is looked at in a thread: 1 MiB made for the purpose takes some tenths of a second.
LARGE_BODY_BYTES = 64 * 1024


#: Gets the answer to a plain request as it is to be written, and whether its connection closes behind it.
OnAnswer: TypeAlias = Callable[[bytes, bool], None]


class Callbacks:
    """Answers requests: authenticates, keeps, and says 200 only then. Each answer leaves within 8 s.

    `running` counts the requests that are not answered yet; `idle` is set while there are none. `were_busy` is set once
    something has happened here that metrics tell of, until somebody clears it.
    """

    def __init__(
        self, config: IngestConfig, durability: Durability, keys: KeyRing, *, rejected: RejectedWriter | None
    ) -> None:
        self._config = config
        self._path = config.path.encode()
        self._durability = durability
        self._keys = keys
        self._refusals = RefusalLog()
        self._rejected = rejected
        self._signature_reuse = SignatureReuse()
        self._partly_understood = PartlyUnderstood()
        self.answers = Answers()
        self.in_flight = InFlightLimit(limit=config.max_in_flight, limit_bytes=config.max_in_flight_bytes)
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.were_busy = asyncio.Event()
        # All time series from the start, each looked up once.
        self._accepted = {
            key: metrics.CALLBACKS_ACCEPTED.labels(routing_key=key) for key in (*EVENT_TYPES, UNRECOGNIZED)
        }
        self._refused = {refusal: _counter(refusal) for refusal in Refusal}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer to `request`. Nothing that a request contains makes this raise."""
        began_s = time.monotonic()
        self._begin()
        try:
            await self._keep(request, began_s)
            return self.answers.kept(request)
        except RefusedError as error:
            if error.refusal is Refusal.WRONG_PATH and asks_for_health(request):
                return self.answers.healthy(is_ready=not self.not_ready())
            return self.refuse(error.refusal, sdk_app_id=error.sdk_app_id)
        finally:
            self._end(began_s)

    def takes_plainly(self, size_bytes: int) -> bool:
        """Say whether a body of this size may be given to `begin`: others may need a thread, or are refused unread."""
        return size_bytes <= LARGE_BODY_BYTES and size_bytes <= self._config.max_body_bytes and not self.answers.closing

    def begin(self, body: bytes, on_answer: OnAnswer, *, trace: str | None) -> None:
        """Do what `answer` does for a plain request that is here as a whole, without a task where all is well.

        `on_answer` is called once: at once for what is refused, later for what is kept, or could not be. `trace` is the
        request's traceparent. What this raises is a defect of ours, and nothing was begun: `answer` can be asked.
        """
        began_s = time.monotonic()
        received_at_us = time.time_ns() // 1000
        try:
            reservation = Reservation(self.in_flight)
            try:
                reservation.take(len(body))
                admitted = self._admit(body, received_at_us)
                message = self._message(admitted, received_at_us, trace)
                begun = _Begun(self, message, admitted, reservation, began_s=began_s, on_answer=on_answer)
                self._durability.begin(
                    message,
                    begun.done,
                    deadline_s=began_s + self._config.budget.total_s,
                    prefer_spool=self._prefers_spool,
                )
            except BaseException:
                reservation.release()
                raise
        except RefusedError as error:
            self._begin()
            self._count(error.refusal, sdk_app_id=error.sdk_app_id)
            self._end(began_s)
            on_answer(*self.answers.rendered(error.refusal))
            return
        self._begin()

    def ended(self, begun: "_Begun", error: Exception | None) -> None:
        """Answer what was begun, whatever happens: `error` is None if it is durable."""
        try:
            refusal = self._conclude(begun, error)
        except Exception as defect:  # noqa: BLE001 - it is told, and the sender sends it again
            refusal = Refusal.BROKEN
            self.note_defect(defect)
            self._count(refusal)
        begun.reservation.release()
        self._end(begun.began_s)
        begun.on_answer(*self.answers.rendered(refusal))

    def _conclude(self, begun: "_Begun", error: Exception | None) -> Refusal | None:
        if error is None:
            self._kept(begun.message, begun.admitted)
            return None
        if isinstance(error, NotKeptError):
            self._count(Refusal.NOT_CONFIRMED, sdk_app_id=begun.admitted.sdk_app_id)
            return Refusal.NOT_CONFIRMED
        raise error

    def not_ready(self) -> tuple[str, ...]:
        """Return why no callback could be kept now; empty if one could."""
        reasons = {
            "neither the broker nor the spool takes anything": not self._durability.is_ready,
            "too many callbacks at once": not self.in_flight.fits(self._config.max_body_bytes),
            "shutting down": self.answers.closing,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    def refuse(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> web.StreamResponse:
        """Count and log a refusal; return its answer."""
        self._count(refusal, sdk_app_id=sdk_app_id)
        return self.answers.refused(refusal)

    @staticmethod
    def note_defect(error: BaseException | None) -> None:
        """Log what is wrong with us, without the error's own text: it may quote the callback."""
        frames = [] if error is None else locations(error)
        _log.error("answering_failed", error=type(error).__name__, frames=frames)

    def flush(self) -> None:
        """Bring the metrics up to date: for each callback it would cost as much as a look at its Sign."""
        metrics.CALLBACKS_IN_FLIGHT.set(self.in_flight.taken)
        metrics.BYTES_IN_FLIGHT.set(self.in_flight.taken_bytes)
        metrics.flush()

    def close(self) -> None:
        """Write what the metrics and the log of refusals hold back."""
        self.flush()
        self._refusals.close()

    async def _keep(self, request: web.BaseRequest, began_s: float) -> None:
        received_at_us = time.time_ns() // 1000
        budget = self._config.budget
        check_headers(request, path=self._path, max_body_bytes=self._config.max_body_bytes)
        with Reservation(self.in_flight) as reservation:
            body = await read_body(request, reservation, max_bytes=self._config.max_body_bytes, timeout_s=budget.body_s)
            if len(body) <= LARGE_BODY_BYTES:
                admitted = self._admit(body, received_at_us)
            else:
                admitted = await self._admit_large(body, received_at_us)
            message = self._message(admitted, received_at_us, request.headers.get("traceparent"))
            try:
                await self._durability.keep(
                    message, deadline_s=began_s + budget.total_s, prefer_spool=self._prefers_spool
                )
            except NotKeptError:
                raise RefusedError(Refusal.NOT_CONFIRMED, sdk_app_id=admitted.sdk_app_id) from None
        self._kept(message, admitted)

    def _begin(self) -> None:
        self.running += 1
        self.idle.clear()
        self.were_busy.set()

    def _end(self, began_s: float) -> None:
        self.running -= 1
        if not self.running:
            self.idle.set()
        metrics.ANSWER_SECONDS.observe(time.monotonic() - began_s)

    def _count(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> None:
        self._refused[refusal].inc()
        self._refusals.note(refusal, sdk_app_id=sdk_app_id)

    @property
    def _prefers_spool(self) -> bool:
        # Half of the room for bodies is for those that can be in the spool in a moment.
        return 2 * self.in_flight.taken_bytes > self.in_flight.limit_bytes

    def _message(self, admitted: Admitted, received_at_us: int, trace: str | None) -> Message:
        message = message_of(admitted, received_at_us=received_at_us, trace=traceparent(trace))
        if admitted.pair is not None:
            self._signature_reuse.note(admitted.pair, message.event_id, received_at_us)
        return message

    def _kept(self, message: Message, admitted: Admitted) -> None:
        self._accepted[message.routing_key].inc()
        if admitted.odd_members:
            self._partly_understood.note(message, admitted.odd_members)

    def _admit(self, body: bytes, received_at_us: int) -> Admitted:
        """Judge a body; what is refused is kept apart."""
        keys, allow_unsigned = self._keys.current, self._config.allow_unsigned
        try:
            return admit(body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us)
        except RefusedError as error:
            self._reject(body, error, received_at_us)
            raise

    def _reject(self, body: bytes, error: RefusedError, received_at_us: int) -> None:
        if self._rejected is not None:
            self._rejected.note(body, error.refusal, sdk_app_id=error.sdk_app_id, received_at_us=received_at_us)

    async def _admit_large(self, body: bytes, received_at_us: int) -> Admitted:
        keys, allow_unsigned = self._keys.current, self._config.allow_unsigned
        try:
            # Not in a thread: it takes 4 ms for 1 MiB of the vendor's, and 160 for the worst that has a right Sign,
            # nearly all of them in calls that keep the loop from running anyway.
            plain = admit_plain(body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us)
            if plain is not None:
                return plain
            async with asyncio.timeout(self._config.budget.look_s):
                return await asyncio.to_thread(
                    admit_anything, body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us
                )
        except TimeoutError:
            raise RefusedError(Refusal.NO_ROOM) from None
        except RefusedError as error:
            self._reject(body, error, received_at_us)
            raise


class _Begun:
    """A callback that was begun without a task."""

    __slots__ = ("_callbacks", "admitted", "began_s", "message", "on_answer", "reservation")

    def __init__(
        self,
        callbacks: Callbacks,
        message: Message,
        admitted: Admitted,
        reservation: Reservation,
        *,
        began_s: float,
        on_answer: OnAnswer,
    ) -> None:
        self._callbacks = callbacks
        self.message = message
        self.admitted = admitted
        self.reservation = reservation
        self.began_s = began_s
        self.on_answer = on_answer

    def done(self, error: Exception | None) -> None:
        self._callbacks.ended(self, error)


def _counter(refusal: Refusal) -> Counter:
    if refusal in NOT_KEPT:
        return metrics.CALLBACKS_NOT_KEPT.labels(reason=refusal.label)
    return metrics.CALLBACKS_REFUSED.labels(reason=refusal.label)


def readmit(rejected: Rejected, *, keys: CallbackKeys, allow_unsigned: AbstractSet[int]) -> Message:
    """Return the message of a callback that is authentic with these keys, judged as of its arrival.

    It is what would have been published then: Sign and ExpireTime are dropped, received_at is that of the arrival.
    Raises `RefusedError` if it is still to be refused.
    """
    admitted = admit(rejected.body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=rejected.received_at_us)
    return message_of(admitted, received_at_us=rejected.received_at_us, trace=traceparent(None))
