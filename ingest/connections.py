"""aiohttp's low-level server, with our limits, our answers to errors that it finds by itself, and less work.

What leans on the inside of aiohttp stands here, and tests/ingest/test_connections.py fails should a new version
change it.
"""

import asyncio
import heapq
import resource
import time
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol, TypeAlias

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import SERVER_SOFTWARE
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage

from telemetry import metrics, with_target

#: For the headers of a connection's first request, and between requests.
KEEPALIVE_TIMEOUT_S = 15.0

#: Who connects to send a request does so within this time, however busy his machine is.
FIRST_REQUEST_S = 1.0

#: How long the rest of a refused body is read and thrown away, so that the sender gets to see its answer.
LINGERING_S = 1.0

#: How long a sender may leave answers unread that fill the buffers, and how long a closed connection may keep any.
UNREAD_TIMEOUT_S = 5.0

#: A request line or header longer than this is refused; the vendor sends a handful of short ones.
MAX_HEADER_BYTES = 4096
MAX_HEADERS = 64

#: All headers of a request together.
MAX_HEAD_BYTES = 32 * 1024

#: What aiohttp may hold of a body before it is read, and then once more: times the connections, that is memory.
READ_BUFFER_BYTES = 64 * 1024

#: Where connections are closed for being too many, some more go than must: finding them is a look at all.
_EVICTED_TOGETHER = 0.05

#: Those, however, have to be as old.
_EVICTED_AGE_S = 1.0

#: What ends in a moment is looked at as often.
_TURN_S = 0.02

#: For the broker, the spool, logs and whatever else a process opens.
_OTHER_DESCRIPTORS = 200

#: What a connection begins with where a load balancer sends the PROXY protocol, in either version:
#: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
_PROXY_HEADERS = (b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n")

Answer: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Makes the answer to a request that could not be answered: the status that aiohttp would give, and what happened.
OnError: TypeAlias = Callable[[int, BaseException | None], web.StreamResponse]


class ProxyProtocolError(Exception):
    """Given to `on_error` for a connection that begins with a header of the PROXY protocol, which nobody asked for."""


class Connection(Protocol):
    """What is known of a connection that is open, whoever reads from it."""

    @property
    def waiting_since_s(self) -> float:
        """Since when this waits for the sender, by the loop's clock; infinity if it is the sender who waits."""

    @property
    def is_expecting(self) -> bool:
        """Whether a request has begun to come, or the first one may be on its way."""

    @property
    def is_answering(self) -> bool:
        """Whether a request is complete and not answered."""

    def close(self) -> None:
        """End, if no request is being answered, else after the answer."""

    def force_close(self) -> None:
        """End, and do not wait for ever until the last answer is read."""

    def abort(self) -> None:
        """End at once, with what was not read."""


class Connections(web.Server):
    """The connections that are open: those of aiohttp's, and others until they are handed over to one of those.

    `answer` gets each request that aiohttp reads; `on_error` makes answers for broken ones.

    At most `limit` connections are open. One more closes that which has been waiting longest for the rest of a request,
    or for its answer to be read: slow ones make room for those that have something to say. Only where every request is
    complete, the new one is closed. `on_change` is called when one was opened or is gone.
    """

    def __init__(
        self, answer: Answer, *, on_error: OnError, limit: int, on_change: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(answer)
        self.request_factory = self._request
        self.on_error = on_error
        self._limit = limit
        self._on_change = on_change
        self._open: set[Connection] = set()
        self.keepalive_timeout_s = KEEPALIVE_TIMEOUT_S
        self.unread_timeout_s = UNREAD_TIMEOUT_S

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def is_expecting(self) -> bool:
        """Whether a request is on its way: one has begun to come, or somebody has connected within FIRST_REQUEST_S."""
        return any(connection.is_expecting for connection in self._open)

    def opened(self, connection: Connection) -> None:
        """Take note of a connection; close others if they are too many."""
        self._open.add(connection)
        self._on_change()
        if len(self._open) > self._limit:
            for slow in self._slowest():
                self._open.discard(slow)
                slow.abort()
                metrics.CONNECTIONS_EVICTED.inc()

    def closed(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        self._open.discard(connection)
        self._on_change()

    def take_over(
        self, connection: Connection, transport: asyncio.Transport, data: bytes, *, is_used: bool, is_paused: bool
    ) -> None:
        """Let aiohttp read an open connection from `data` on; nothing of that was answered.

        `is_used`: it has had requests before. `is_paused`: its sender does not read the answers.
        """
        taken = _Connection(self, is_used=is_used)
        since_s = connection.waiting_since_s
        self._open.discard(connection)
        self._open.add(taken)
        transport.set_protocol(taken)
        taken.begin(transport, waiting_since_s=since_s)
        if is_paused:
            taken.pause_writing()
        taken.data_received(data)

    def pre_shutdown(self) -> None:
        """Close what is not busy, and the rest after its answer."""
        super().pre_shutdown()
        for connection in tuple(self._open):
            connection.close()

    async def finish(self, timeout_s: float) -> None:
        """Wait for answers that are due, twice `timeout_s` at most, then close all that is open."""
        await asyncio.gather(self.shutdown(timeout_s), self._await_answers(timeout_s=2 * timeout_s))
        for connection in tuple(self._open):
            connection.force_close()

    async def _await_answers(self, *, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(connection.is_answering for connection in self._open):  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(_TURN_S)

    def _request(self, message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        return super()._make_request(with_target(message), *others)

    def _slowest(self) -> Iterable[Connection]:
        waiting = [(connection.waiting_since_s, id(connection), connection) for connection in self._open]
        oldest = heapq.nsmallest(max(1, int(self._limit * _EVICTED_TOGETHER)), waiting)
        old_s = get_running_loop().time() - _EVICTED_AGE_S
        for number, (since_s, _, connection) in enumerate(oldest):
            if number == 0 or since_s < old_s:
                yield connection


def head_parser() -> HttpRequestParser:
    """Return a parser of aiohttp's, as each connection has one, that is given heads alone, without their bodies.

    It reads one head after another, up to one that it refuses, or that is the last of its connection.
    """
    return HttpRequestParser(
        BaseProtocol(get_running_loop()),
        get_running_loop(),
        READ_BUFFER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
        response_with_body=False,
        auto_decompress=False,
    )


class _Connection(web.RequestHandler):
    __slots__ = ("_connections", "_head_bytes", "_is_used", "_on_error", "_sends_proxy_header", "_unread")

    def __init__(self, connections: Connections, *, is_used: bool) -> None:
        super().__init__(
            connections,
            loop=get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # turns it off, as AppRunner does
            auto_decompress=False,
            keepalive_timeout=connections.keepalive_timeout_s,
            lingering_time=LINGERING_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._connections = connections
        self._is_used = is_used
        self._on_error = connections.on_error
        self._head_bytes = 0
        self._sends_proxy_header = False
        self._unread: asyncio.TimerHandle | None = None

    @property
    def waiting_since_s(self) -> float:
        """Since when this waits for the sender, by the loop's clock; infinity if it is the sender who waits."""
        request = self._current_request
        if self._paused or self._awaits_head:
            # When it was opened, or the last answer was given.
            return self._next_keepalive_close_time - self._keepalive_timeout
        if request is not None and not request.content.is_eof():
            # A body has a deadline of its own, which is near: before those that were just opened, after all others.
            return self._loop.time() - _EVICTED_AGE_S
        return float("inf")

    @property
    def is_expecting(self) -> bool:
        """Whether a request has begun to come, or the first one may be on its way."""
        if self._head_bytes:
            return True
        is_new = self._awaits_head and not self._request_count and not self._is_used
        return is_new and self._loop.time() - self.waiting_since_s < FIRST_REQUEST_S

    @property
    def is_answering(self) -> bool:
        """Whether a request is complete and not answered."""
        return self._request_in_progress

    @property
    def _awaits_head(self) -> bool:
        # Between two requests aiohttp waits; before the first one it may not have begun to.
        return not self._messages and (self._waiter is not None or not self._request_count)

    def begin(self, transport: asyncio.Transport, *, waiting_since_s: float) -> None:
        """Take over from whoever has read until now: the time that the sender has goes on."""
        self.connection_made(transport)
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        close_time = waiting_since_s + self._keepalive_timeout
        self._next_keepalive_close_time = close_time
        self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._connections.closed(self)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound what is held of a request whose headers are not complete: aiohttp bounds each header only."""
        is_first = not self._is_used and not self._request_count and not self._head_bytes
        if is_first and data.startswith(_PROXY_HEADERS):
            self._sends_proxy_header = True
        super().data_received(data)
        if self._messages or not self._awaits_head:
            self._head_bytes = 0
        else:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.abort()

    def pause_writing(self) -> None:
        """Wait for a sender that does not read its answers, but not for ever."""
        super().pause_writing()
        self._unread = self._loop.call_later(self._connections.unread_timeout_s, self.abort)

    def resume_writing(self) -> None:
        """Go on: the sender reads."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    async def start(self) -> None:
        """Answer requests until the connection is to end."""
        await super().start()
        if self.transport is not None:
            self._end_soon(self.transport)

    def force_close(self) -> None:
        """End, and do not wait for ever until the last answer is read."""
        transport = self.transport
        super().force_close()
        if transport is not None:
            self._end_soon(transport)

    def abort(self) -> None:
        """End at once, with what was not read."""
        transport = self.transport
        super().force_close()
        if transport is not None:
            transport.abort()

    def _end_soon(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            self._loop.call_later(self._connections.unread_timeout_s, transport.abort)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer as everywhere else, and do not log what the request contains, as aiohttp does."""
        del request, message
        return self._on_error(status, ProxyProtocolError() if self._sends_proxy_header else exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading, if reading was paused: aiohttp asks for it twice per request, and feeds its parser nothing."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)


def connection_limit(wanted: int) -> int:
    """Return how many connections there can be, at most `wanted`: each needs a descriptor, and other things do, too."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors - _OTHER_DESCRIPTORS))


class RenderedAnswer(web.StreamResponse):
    """An answer of status 200 that is the same for every request, written as it stands, in one go.

    Only for requests of HTTP/1.1 whose connection stays open: `fits` says so. One instance answers any number of them
    at once, as it keeps nothing of a request.
    """

    def __init__(self, body: bytes, *, content_type: str) -> None:
        super().__init__()
        self._keep_alive = True
        self._head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nDate: " % (
            content_type.encode(),
            len(body),
        )
        self._rest = b"\r\n\r\n" + body
        self._rendered = b""
        self._rendered_at_s = -1

    @staticmethod
    def fits(request: web.BaseRequest) -> bool:
        """Say whether `request` can be answered like this."""
        return request.version == (1, 1) and request.keep_alive

    def render(self) -> bytes:
        """Return it as it is written now."""
        now_s = int(time.time())
        if now_s != self._rendered_at_s:
            # A server with a clock sends the Date: https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
            self._rendered = self._head + formatdate(now_s, usegmt=True).encode() + self._rest
            self._rendered_at_s = now_s
        return self._rendered

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it all, and wait while the sender does not read. Raises ConnectionError if it is gone."""
        writer = request.writer
        await writer.write(self.render())
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""


def render_answer(status: int, body: bytes, *, content_type: str, closes: bool) -> bytes:
    """Return what aiohttp writes for `web.Response(status=status, body=body, content_type=content_type)`.

    To a request of HTTP/1.1; `closes`: the connection ends behind it.
    """
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {formatdate(int(time.time()), usegmt=True)}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n"
    )
    return head.encode() + (b"Connection: close\r\n\r\n" if closes else b"\r\n") + body
