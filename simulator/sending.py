"""Sending: one callback as the vendor tries it, and many classes at the same time.

Source: https://www.tencentcloud.com/document/product/1176/55569
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from math import ceil, inf
from operator import itemgetter
from random import Random
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from msgspec import Struct

from simulator.classes import (
    DEFAULT_BUCKET,
    DEFAULT_KINDS,
    LONGEST_CLASS_S,
    Bucket,
    Callback,
    ClassKind,
    SimulatedClass,
    make_class,
    render,
    sign,
)


class Clock(Struct, frozen=True, kw_only=True):
    """What the time is, and how to let some pass. All in seconds."""

    #: Since the Unix epoch; only ExpireTime is made of it.
    unix_s: Callable[[], float] = time.time
    #: Never goes back; latencies and the rate are measured with it.
    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


SYSTEM_CLOCK = Clock()


class ClassTime:
    """The time of classes that are held faster than in truth: a clock in Unix seconds, to be called.

    It is `starts_at` at `began_s` (Unix seconds of `clock`, by default now), goes `speed` times as fast until `until`,
    and from there on as fast as any other. Two processes that are told the same have the same time.
    """

    def __init__(
        self,
        starts_at: float,
        *,
        speed: float = 1.0,
        until: float = inf,
        began_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._starts_at = starts_at
        self._speed = speed
        self._until = max(until, starts_at)
        self._began_s = clock.unix_s() if began_s is None else began_s
        self._clock = clock

    def __call__(self) -> float:
        elapsed_s = self._clock.unix_s() - self._began_s
        return self._starts_at + min(elapsed_s * self._speed, self._fast_s + max(0.0, elapsed_s - self._real_s))

    async def wait_until(self, at: float) -> None:
        """Return once it is `at`, at once if it is later."""
        fast_s = at - self._starts_at
        real_s = fast_s / self._speed if fast_s <= self._fast_s else self._real_s + fast_s - self._fast_s
        await self._clock.sleep(max(0.0, self._began_s + real_s - self._clock.unix_s()))

    @property
    def _fast_s(self) -> float:
        """How much of its own time passes fast."""
        return self._until - self._starts_at

    @property
    def _real_s(self) -> float:
        """How long that takes."""
        return self._fast_s / self._speed


#: How long a signature holds. The vendor does not say; an hour outlasts all tries by far.
SIGNATURE_LIFETIME_S = 3_600

_ACCEPTED = 200
_HEADERS = {"Content-Type": "application/json", "User-Agent": "tiw-simulator"}


class Patience(Struct, frozen=True, kw_only=True):
    """How long a try may take and when the next one follows; the defaults are the vendor's."""

    timeout_s: float = 10.0
    retry_delay_s: float = 5.0
    retries: int = 5


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one callback.

    `failures` says in a word why each try but an accepted one failed: `HTTP 503`, `time-out`, `not connected`,
    `connection lost`. `answer_ms` is how long the accepted try took, None if all failed.
    """

    accepted: bool
    retries: int
    failures: tuple[str, ...] = ()
    answer_ms: float | None = None


class Sender:
    """Sends callbacks to one address over connections that it owns; an async context manager.

    Any number of sends may run at the same time: it sets no bound of its own. Each try is signed with the `key`, or
    with the one that it returns then; not at all with None.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | Callable[[], str | None] | None,
        patience: Patience | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = url
        self._key = key
        self._patience = patience or Patience()
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=self._patience.timeout_s),
            # A proxy of the environment would answer in the receiver's place.
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, callback: Callback, *, copy: int = 0) -> Outcome:
        """Send until a try is answered 200 in time, or the last one failed; raise nothing for what receivers do.

        Every try is signed anew, and `copy` makes the signature of a repeated callback differ from the first one's.
        """
        failures: list[str] = []
        while True:
            body = self._signed_body(callback, copy)
            began_s = self._clock.monotonic_s()
            failure = await self._try(body)
            if failure is None:
                answer_ms = (self._clock.monotonic_s() - began_s) * 1_000
                return Outcome(accepted=True, retries=len(failures), failures=tuple(failures), answer_ms=answer_ms)
            failures.append(failure)
            if len(failures) > self._patience.retries:
                return Outcome(accepted=False, retries=len(failures) - 1, failures=tuple(failures))
            await self._clock.sleep(self._patience.retry_delay_s)

    def _signed_body(self, callback: Callback, copy: int) -> bytes:
        key = self._key() if callable(self._key) else self._key
        if key is None or callback.sdk_app_id is None:
            return render(callback)
        return render(callback, sign(key, int(self._clock.unix_s()) + SIGNATURE_LIFETIME_S + copy))

    async def _try(self, body: bytes) -> str | None:
        """Return why the try failed; None if it was accepted."""
        if self._session is None:
            raise RuntimeError("a Sender sends only inside its `async with` block")
        try:
            # A redirect is an answer other than 200, not an invitation.
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                await response.read()
        except TimeoutError:
            return "time-out"
        except aiohttp.ClientConnectorError:
            return "not connected"
        except (aiohttp.ClientError, OSError):
            return "connection lost"
        return None if response.status == _ACCEPTED else f"HTTP {response.status}"


#: Classes that are held at the same time, each at its own point.
_OVERLAPPING_CLASSES = 16

#: The vendor's range of RoomId is that of 32 bits, from 1; short ones are left to real rooms.
_ROOM_IDS = range(10_000, 2**32)


class Send(Struct, frozen=True, kw_only=True):
    """A callback to be sent: the first time (`copy` 0) or once more (`copy` 1). One send of each class ends it.

    One that `is_dropped` must not be sent: it is lost on its way, as every copy of it. `due_at` is when it is sent
    by the time of the class, in Unix seconds: the callback's Timestamp, or later if it is held back.
    """

    callback: Callback
    copy: int
    ends_class: bool
    is_dropped: bool = False
    due_at: int = 0


class Day(Struct, frozen=True, kw_only=True):
    """When classes are held: they begin and, if there is time enough, end within `length_s` from `starts_at` (Unix s).

    With `rooms` so many rooms are used again and again, one class after the other as long as there is time for that.
    No class is shorter than `shortest_s`: one that ends between two looks at a list is never seen on it.
    """

    starts_at: int
    length_s: int = 86_400
    rooms: int | None = None
    shortest_s: int = 0


def make_classes(
    count: int,
    *,
    sdk_app_id: int,
    seed: int,
    kinds: Sequence[ClassKind] = DEFAULT_KINDS,
    day: Day | None = None,
    bucket: Bucket = DEFAULT_BUCKET,
) -> Iterator[SimulatedClass]:
    """Yield `count` classes, one after the other as they are asked for; the same arguments give the same classes.

    Class number n is of kind n modulo the number of `kinds`, has a TaskId and, but for `day.rooms`, a RoomId of its
    own, and its content depends on `seed`, n, `day` and `bucket` alone. Without a `day` it is on some day of 2025.
    Files lie in `bucket`.
    """
    rooms: dict[int, None] = {}
    for number in range(count):
        rng = _random(seed, f"class {number}")
        room_id = rng.choice(_ROOM_IDS)
        while room_id in rooms:
            room_id = rng.choice(_ROOM_IDS)
        started_at = None
        if day is not None:
            reused = min(day.rooms or count, count)
            started_at = _start(day, number, _random(seed, f"start {number}"), count=count, rooms=reused)
            if number >= reused:
                room_id = list(rooms)[number % reused]
        rooms[room_id] = None
        yield make_class(
            kinds[number % len(kinds)],
            rng,
            sdk_app_id=sdk_app_id,
            room_id=room_id,
            started_at=started_at,
            shortest_s=0 if day is None else day.shortest_s,
            bucket=bucket,
        )


def _start(day: Day, number: int, rng: Random, *, count: int, rooms: int) -> int:
    """Return when class `number` begins: each room has as many slots as it has classes."""
    slot_s = day.length_s / ceil(count / rooms)
    return day.starts_at + int(number // rooms * slot_s) + rng.randrange(max(1, int(slot_s) - LONGEST_CLASS_S))


def schedule(
    *,
    classes: int,
    kinds: Sequence[ClassKind],
    sdk_app_id: int,
    seed: int,
    duplicates: float,
    disorder: float,
    drop: float = 0.0,
    day: Day | None = None,
    bucket: Bucket = DEFAULT_BUCKET,
) -> Iterator[Send]:
    """Yield every callback of `classes` classes, at least once each; the same arguments give the same sequence.

    The classes are those of `make_classes`. `duplicates` is the share of callbacks that are sent once more, `disorder`
    the share that is held back until others of the class have gone, `drop` the share that is lost. Classes are made
    as they are needed, so a long sequence takes little memory.
    """
    rng = _random(seed, "interleaving")
    held = make_classes(classes, sdk_app_id=sdk_app_id, seed=seed, kinds=kinds, day=day, bucket=bucket)
    coming = (
        iter(_arrange(cls, number, seed, duplicates=duplicates, disorder=disorder, drop=drop))
        for number, cls in enumerate(held)
    )
    running: list[Iterator[Send]] = []
    while True:
        while len(running) < _OVERLAPPING_CLASSES and (next_class := next(coming, None)) is not None:
            running.append(next_class)
        if not running:
            return
        index = rng.randrange(len(running))
        send = next(running[index])
        yield send
        if send.ends_class:
            del running[index]


def _arrange(
    cls: SimulatedClass, number: int, seed: int, *, duplicates: float, disorder: float, drop: float
) -> Iterator[Send]:
    """Yield the sends of class `number` in order."""
    # Streams of numbers of their own: the content of a class does not depend on how it is sent, nor its order on loss.
    rng, fate = _random(seed, f"order {number}"), _random(seed, f"drop {number}")
    count = len(cls.callbacks)
    places: list[tuple[float, Callback, int]] = []
    dropped: set[str] = set()
    for index, callback in enumerate(cls.callbacks):
        # Fractions decide between neighbours: one that is held back goes after the next one, a copy after its first.
        place = index + rng.randint(1, count) + 0.5 if rng.random() < disorder else index
        places.append((place, callback, 0))
        if rng.random() < duplicates:
            places.append((place + rng.randrange(count) + 0.25, callback, 1))
        if fate.random() < drop:
            dropped.add(callback.event_id)
    places.sort(key=itemgetter(0))
    due_at = 0
    for index, (_, callback, copy) in enumerate(places, start=1):
        due_at = max(due_at, callback.timestamp)
        yield Send(
            callback=callback,
            copy=copy,
            ends_class=index == len(places),
            is_dropped=callback.event_id in dropped,
            due_at=due_at,
        )


def _random(seed: int, purpose: str) -> Random:
    return Random(f"{seed} {purpose}")  # noqa: S311 - to be reproducible is the point; no secret is made of it


T = TypeVar("T")


async def paced(items: Iterable[T], *, rate: float, clock: Clock) -> AsyncIterator[T]:
    """Yield `rate` items per second, each when it is due since the first one.

    What is late follows at once, so that a stall of the consumer does not lower the rate.
    """
    began_s = clock.monotonic_s()
    for index, item in enumerate(items):
        # Even a sleep of no length lets the others run.
        await clock.sleep(max(0.0, began_s + index / rate - clock.monotonic_s()))
        yield item
