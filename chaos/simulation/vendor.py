"""The sender as it really behaves, and the one address of all ingest nodes that it sends to."""

import asyncio
import time
from http import HTTPStatus
from random import Random
from typing import Any, cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from chaos.simulation.evidence import Notes, Story
from chaos.simulation.network import Network
from chaos.simulation.plan import Plan
from chaos.simulation.processes import Process
from chaos.simulation.virtual_time import VirtualLoop
from ingest.callbacks import Callbacks
from simulator import Callback, ClassKind, Patience, Send, render, schedule, sign

PATH = "/callbacks/tiw"
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Listener:
    """An ingest node that listens: its process, and what answers there."""

    def __init__(self, process: Process, callbacks: Callbacks) -> None:
        self.process = process
        self.callbacks = callbacks


class IngestAddress:
    """Brings each request to a node that listens, and the answer back."""

    def __init__(self, loop: VirtualLoop, network: Network, notes: Notes) -> None:
        self._loop = loop
        self._network = network
        self._notes = notes
        self.listeners: list[Listener] = []

    async def post(self, event_id: str, body: bytes) -> int:
        """Return the status of the answer; raise ConnectionError if nobody listens or the connection is lost.

        Whoever does not want to wait any more cancels this: the node does not notice.
        """
        await asyncio.sleep(self._network.latency_s())
        listeners = [listener for listener in self.listeners if not listener.process.is_dead]
        if not listeners:
            raise ConnectionError("nobody listens")
        listener = listeners[self._network.pick(len(listeners))]
        answered: asyncio.Future[int] = self._loop.create_future()

        def lose() -> None:
            if not answered.done():
                answered.set_exception(ConnectionError("the connection was lost"))

        listener.process.on_death.append(lose)
        listener.process.spawn(self._serve(listener, event_id, body, answered), name=f"request {event_id[:8]}")
        try:
            return await answered
        finally:
            if lose in listener.process.on_death:  # it ended meanwhile if not
                listener.process.on_death.remove(lose)

    async def _serve(self, listener: Listener, event_id: str, body: bytes, answered: "asyncio.Future[int]") -> None:
        process, began_s = listener.process, self._loop.time()
        try:
            status = await self._status(listener.callbacks, event_id, body)
        except Exception as error:
            self._notes.failed(process.name, f"answering raised {error!r}")
            raise
        await process.passes("answering")
        took_s = self._loop.time() - began_s
        self._notes.answered(process.name, event_id, status, took_s, was_stopped=process.was_stopped)
        if not self._network.loses_answer():
            self._loop.after(self._network.latency_s(), _settle, answered, status)
        await process.passes("answered")

    async def _status(self, callbacks: Callbacks, event_id: str, body: bytes) -> int:
        """Return the status of the answer to a request: of half of the callbacks it is plain, of the others not."""
        if event_id[-1] in "02468ace" or not callbacks.takes_plainly(len(body)):
            return (await callbacks.answer(_request(self._loop, body))).status
        answered: asyncio.Future[bytes] = self._loop.create_future()
        callbacks.begin(body, lambda answer, _: answered.set_result(answer), trace=_TRACEPARENT)
        return int((await answered).split(b" ", 2)[1])


class _Protocol:
    """As much of a connection as a request looks at."""

    ssl_context = None
    peername = ("192.0.2.1", 50_000)
    sockname = ("192.0.2.2", 8080)
    transport = None

    def resume_reading(self, **_: object) -> None:
        """Do nothing: the whole request is here."""


def _request(loop: asyncio.AbstractEventLoop, body: bytes) -> web.BaseRequest:
    """Return a complete request, as aiohttp's parser makes it."""
    protocol = cast("Any", _Protocol())
    content = StreamReader(protocol, 2**16, loop=loop)
    content.feed_data(body)
    content.feed_eof()
    headers = CIMultiDict(
        {
            hdrs.HOST: "tiw.example",
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.CONTENT_LENGTH: str(len(body)),
            "traceparent": _TRACEPARENT,
        }
    )
    message = RawRequestMessage(
        method="POST",
        path=PATH,
        version=HttpVersion11,
        headers=CIMultiDictProxy(headers),
        raw_headers=(),
        should_close=False,
        compression=None,
        upgrade=False,
        chunked=False,
        url=URL(PATH),
    )
    task = cast("Any", asyncio.current_task(loop))
    return web.BaseRequest(message, content, protocol, cast("Any", None), task, loop)


def _settle(answered: "asyncio.Future[int]", status: int) -> None:
    if not answered.done():
        answered.set_result(status)


SDK_APP_ID = 1_400_000_001
KEY = "the key of simulated worlds"
FORGED_KEY = "a key that nobody was given"

_SIGNATURE_LIFETIME_S = 3600
_KINDS = (
    ClassKind.NORMAL,
    ClassKind.LONG_PAUSE_FORCE_STOPPED,
    ClassKind.FAILED,
    ClassKind.OTHER_FAMILIES,
    ClassKind.LONG_PAUSE_RESUMED,
    ClassKind.ERROR_ONLY,
)
_DUPLICATES = 0.2
_DISORDER = 0.4


class Vendor:
    """Plays the classes of a plan, and some callbacks that somebody forged."""

    def __init__(self, plan: Plan, ingest_address: IngestAddress, notes: Notes, story: Story) -> None:
        self._plan = plan
        self._ingest_address = ingest_address
        self._notes = notes
        self._story = story
        self._patience = Patience()

    async def play(self) -> None:
        """Send everything; return when the last callback is accepted or given up."""
        rng = Random(f"vendor {self._plan.seed}")
        sends = [send.callback for send in self._schedule(self._plan.classes, self._plan.seed)]
        begins_s = sorted(rng.uniform(0, self._plan.sending_s) for _ in sends)
        forged = [send.callback for send in self._schedule(self._plan.forged, self._plan.seed + 1_000_000_007)]
        async with asyncio.TaskGroup() as group:
            for begin_s, callback in zip(begins_s, sends, strict=True):
                self._notes.sends(callback)
                group.create_task(self.send(callback, begin_s, KEY))
            for callback in forged:
                self._notes.sends(callback, forged="with a key that nobody was given")
                group.create_task(self.send(callback, rng.uniform(0, self._plan.sending_s), FORGED_KEY))

    def _schedule(self, classes: int, seed: int) -> list[Send]:
        return list(
            schedule(
                classes=classes,
                kinds=_KINDS,
                sdk_app_id=SDK_APP_ID,
                seed=seed,
                duplicates=_DUPLICATES,
                disorder=_DISORDER,
            )
        )

    async def send(self, callback: Callback, begin_s: float, key: str) -> int | str:
        """Send one callback from `begin_s` seconds on; return what the last try came to."""
        await asyncio.sleep(begin_s)
        status: int | str = ""
        for _ in range(1 + self._patience.retries):
            status = await self._try(callback, key)
            self._story.tell("vendor", str(status), callback.event_type, callback.event_id[:8])
            if status == HTTPStatus.OK:
                return status
            await asyncio.sleep(self._patience.retry_delay_s)
        if key == KEY:
            self._notes.gave_up(callback.event_id)
        return status

    async def _try(self, callback: Callback, key: str) -> int | str:
        body = render(callback, sign(key, int(time.time()) + _SIGNATURE_LIFETIME_S))
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                return await self._ingest_address.post(callback.event_id, body)
        except TimeoutError:
            return "time-out"
        except ConnectionError as error:
            return str(error)
