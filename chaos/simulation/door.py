"""The address that callbacks are sent to: one of the ingest nodes behind it, and what the network makes of that."""

import asyncio
from typing import Any, cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from chaos.simulation.evidence import Evidence
from chaos.simulation.network import Network
from chaos.simulation.processes import Process
from chaos.simulation.virtual_time import VirtualLoop
from ingest.callbacks import Callbacks

PATH = "/callbacks/tiw"
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Listener:
    """An ingest node that listens: its process, and what answers there."""

    def __init__(self, process: Process, callbacks: Callbacks) -> None:
        self.process = process
        self.callbacks = callbacks


class Door:
    """Brings each request to a node that listens, and the answer back."""

    def __init__(self, loop: VirtualLoop, network: Network, evidence: Evidence) -> None:
        self._loop = loop
        self._network = network
        self._evidence = evidence
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
            listener.process.on_death.remove(lose)

    async def _serve(self, listener: Listener, event_id: str, body: bytes, answered: "asyncio.Future[int]") -> None:
        process, began_s = listener.process, self._loop.time()
        try:
            answer = await listener.callbacks.answer(_request(self._loop, body))
        except Exception as error:
            self._evidence.failed(process.name, f"answering raised {error!r}")
            raise
        await process.passes("answering")
        took_s = self._loop.time() - began_s
        self._evidence.answered(process.name, event_id, answer.status, took_s, was_stopped=process.was_stopped)
        if not self._network.loses_answer():
            self._loop.after(self._network.latency_s(), _settle, answered, answer.status)
        await process.passes("answered")


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
