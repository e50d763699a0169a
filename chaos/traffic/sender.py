"""Sends callbacks as the vendor does, and writes down each try before and after."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

import aiohttp
from msgspec import Struct

from chaos.evidence.clock import now_us
from chaos.evidence.digests import content_digest
from chaos.evidence.lines import LineWriter
from chaos.evidence.records import GaveUp, Sent, Tried
from chaos.traffic.forging import forge
from chaos.traffic.order import Order
from chaos.traffic.stalls import Stalls
from chaos.traffic.stream import Item
from simulator import Callback, Patience, sign
from simulator.classes import render
from simulator.sending import SYSTEM_CLOCK, paced

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
