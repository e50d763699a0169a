"""Sends callbacks as the vendor does, and writes down each try before and after."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from random import Random
from typing import Self

import aiohttp
from msgspec import Struct, structs

from chaos.evidence import GaveUp, LineWriter, Sent, Tried, content_digest, now_us
from schemas import decode
from simulator import DEFAULT_KINDS, Callback, ClassKind, Patience, schedule, sign
from simulator.classes import render
from simulator.sending import SYSTEM_CLOCK, paced


class Order(Struct, frozen=True, kw_only=True):
    """Whom to send to, what and how fast; `rate` None: `concurrency` at a time. `ledger` is the file to write."""

    addresses: tuple[str, ...]
    sdk_app_id: int
    key: str
    seed: int
    rate: float | None
    concurrency: int
    duplicates: float
    forged: float
    body_bytes: int
    ledger: str


#: More than any run sends: classes are made as they are needed.
_ENDLESS = 10**9

#: All five events, those of other families, and the oldest form of a failure, which makes no recording.
KINDS = (*DEFAULT_KINDS, ClassKind.OTHER_FAMILIES, ClassKind.ERROR_ONLY)


class Item(Struct, frozen=True, kw_only=True):
    """What is sent next. `is_repeated`: once it was accepted it is sent once more, as late answers cause it."""

    callback: Callback
    is_repeated: bool = False
    is_forged: bool = False


def stream(seed: int, *, sdk_app_id: int, duplicates: float, forged: float) -> Iterator[Item]:
    """Yield the same items for the same arguments. No callback occurs twice, nor does a forgery's."""
    rng = Random(f"{seed} stream")
    genuine = _callbacks(seed * 2, sdk_app_id)
    others = _callbacks(seed * 2 + 1, sdk_app_id)
    while True:
        if rng.random() < forged:
            yield Item(callback=next(others), is_forged=True)
        yield Item(callback=next(genuine), is_repeated=rng.random() < duplicates)


def _callbacks(seed: int, sdk_app_id: int) -> Iterator[Callback]:
    sends = schedule(classes=_ENDLESS, kinds=KINDS, sdk_app_id=sdk_app_id, seed=seed, duplicates=0.0, disorder=0.2)
    return (send.callback for send in sends)


#: The ways, by the names that the ledger has.
WAYS = ("no Sign", "another key", "expired", "another application")


class Forgery(Struct, frozen=True, kw_only=True):
    """A request that must be refused, in which way it is forged, and the event_id that must appear nowhere."""

    way: str
    event_id: str
    body: bytes


def forge(callback: Callback, rng: Random, *, key: str, other_app: int) -> Forgery:
    """Make a forgery of a callback that is never sent otherwise."""
    way = rng.choice(WAYS)
    now_s = int(time.time())
    if way == "no Sign":
        body = render(callback)
    elif way == "another key":
        body = render(callback, sign(key[::-1] + "0", now_s + 3_600))
    elif way == "expired":
        body = render(callback, sign(key, now_s - 86_400))
    else:
        genuine = render(callback, sign(key, now_s + 3_600))
        body = genuine.replace(b'"SdkAppId": %d' % (callback.sdk_app_id or 0), b'"SdkAppId": %d' % other_app)
    decoded = decode(body, received_at_us=now_s * 1_000_000)
    return Forgery(way=way, event_id=decoded.event_id, body=body)


_PADDING = "Padding"


def enlarged(callback: Callback, body_bytes: int) -> Callback:
    """Return the callback with a member more in its data, so that its signed body has exactly this size.

    Its event_id is another one: that of the larger content. A callback that is larger already comes back as it is.
    """
    empty = _padded(callback, "")
    missing = body_bytes - len(render(empty, sign("any", callback.timestamp)))
    if missing < 0:
        return callback
    larger = _padded(callback, "x" * missing)
    content = decode(render(larger), received_at_us=callback.timestamp * 1_000_000)
    return structs.replace(larger, event_id=content.event_id)


def _padded(callback: Callback, padding: str) -> Callback:
    data = callback.event_data.rstrip().removesuffix("}")
    return structs.replace(callback, event_data=f'{data},"{_PADDING}":"{padding}"}}')


_EVERY_US = 50_000

#: Longer than any try.
_REMEMBERED_US = 60_000_000


class Stalls:
    """Watches its event loop; an async context manager."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()
        self._due_us = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._due_us = now_us()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def between(self, began_us: int, ended_us: int) -> int:
        """Return for how many microseconds the loop stood still between two moments of which the second is now."""
        overlaps = [
            (max(began_us, start), min(ended_us, end)) for start, end in [*self._seen, (self._due_us, ended_us)]
        ]
        return sum(end - start for start, end in overlaps if end - start > _EVERY_US)

    async def _watch(self) -> None:
        while True:
            self._due_us = now_us() + _EVERY_US
            await asyncio.sleep(_EVERY_US / 1_000_000)
            woken_us = now_us()
            if woken_us - self._due_us > _EVERY_US:
                self._seen.append((self._due_us, woken_us))
            while self._seen and self._seen[0][1] < woken_us - _REMEMBERED_US:
                self._seen.popleft()


_ACCEPTED = 200
_NOT_CONNECTED = "not connected"
_LIFETIME_S = 3_600
_REPEATED_AFTER_S = 1.0
_HEADERS = {"Content-Type": "application/json", "User-Agent": "tiw-chaos"}


class _Answer(Struct, frozen=True, kw_only=True):
    status: int
    failure: str = ""


class Sender:
    """Sends what `items` yields until `stopping` is set, then finishes the repetitions that are due."""

    def __init__(self, order: Order, ledger: LineWriter, stalls: Stalls, stopping: asyncio.Event) -> None:
        self._order = order
        self._ledger = ledger
        self._stalls = stalls
        self._stopping = stopping
        self._patience = Patience()
        self._turns = count()
        self._rng = Random(f"{order.seed} forgeries")

    async def send_all(self, items: Iterator[Item]) -> None:
        """Send, and return once all that was begun is accepted or given up."""
        async with _session(self._patience.timeout_s) as session, asyncio.TaskGroup() as group:
            if self._order.rate is None:
                for _ in range(self._order.concurrency):
                    group.create_task(self._send_in_turn(session, items))
            else:
                async for item in self._until_stopped(paced(items, rate=self._order.rate, clock=SYSTEM_CLOCK)):
                    group.create_task(self._send(session, item))

    async def _until_stopped(self, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
        async for item in items:
            if self._stopping.is_set():
                return
            yield item

    async def _send_in_turn(self, session: aiohttp.ClientSession, items: Iterator[Item]) -> None:
        for item in items:
            if self._stopping.is_set():
                return
            await self._send(session, item)

    async def _send(self, session: aiohttp.ClientSession, item: Item) -> None:
        callback = item.callback
        if item.is_forged:
            forgery = forge(callback, self._rng, key=self._order.key, other_app=self._order.sdk_app_id + 1)
            self._note_sent(forgery.event_id, callback, forgery.way)
            await self._try(session, forgery.event_id, forgery.body, attempt=1)
            return
        event_id = callback.event_id
        self._note_sent(event_id, callback, "")
        for attempt in range(1, self._patience.retries + 2):
            if await self._try(session, event_id, self._signed(callback), attempt=attempt) == _ACCEPTED:
                if item.is_repeated:
                    # As when a 200 comes too late: the sender tries again although it was kept.
                    await asyncio.sleep(_REPEATED_AFTER_S)
                    await self._try(session, event_id, self._signed(callback), attempt=0)
                return
            if attempt <= self._patience.retries:
                await asyncio.sleep(self._patience.retry_delay_s)
        self._ledger.write(GaveUp(event_id=event_id, at_us=now_us()))

    def _note_sent(self, event_id: str, callback: Callback, way: str) -> None:
        sent = Sent(
            event_id=event_id,
            event_type=callback.event_type,
            digest=content_digest(render(callback)),
            at_us=now_us(),
            forged=way,
        )
        self._ledger.write(sent)

    def _signed(self, callback: Callback) -> bytes:
        return render(callback, sign(self._order.key, int(SYSTEM_CLOCK.unix_s()) + _LIFETIME_S))

    async def _try(self, session: aiohttp.ClientSession, event_id: str, body: bytes, *, attempt: int) -> int:
        began_us = now_us()
        answer = await self._ask(session, body)
        ended_us = now_us()
        tried = Tried(
            event_id=event_id,
            attempt=attempt,
            began_us=began_us,
            ended_us=ended_us,
            status=answer.status,
            failure=answer.failure,
            stalled_us=self._stalls.between(began_us, ended_us),
        )
        self._ledger.write(tried)
        return answer.status

    async def _ask(self, session: aiohttp.ClientSession, body: bytes) -> _Answer:
        """Send to the next node, and on to another one if it refuses the connection, as any load balancer does."""
        answer = _Answer(status=0, failure=_NOT_CONNECTED)
        addresses = self._order.addresses
        first = next(self._turns)
        for number in range(first, first + len(addresses)):
            answer = await _post(session, addresses[number % len(addresses)], body)
            if answer.failure != _NOT_CONNECTED:
                break
        return answer


@asynccontextmanager
async def _session(timeout_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        trust_env=False,
    ) as session:
        yield session


async def _post(session: aiohttp.ClientSession, address: str, body: bytes) -> _Answer:
    try:
        async with session.post(address, data=body, allow_redirects=False) as response:
            await response.read()
            return _Answer(status=response.status)
    except TimeoutError:
        return _Answer(status=0, failure="time-out")
    except aiohttp.ClientConnectorError:
        return _Answer(status=0, failure=_NOT_CONNECTED)
    except (aiohttp.ClientError, OSError):
        return _Answer(status=0, failure="connection lost")
