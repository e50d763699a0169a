"""Connections whose requests are plain: each is answered in the call-backs of the event loop, without a task.

A plain request is a callback as its sender means it: POST to the right path, one Content-Length, a body that is not
large, all of it here at once, and no other request before it is answered. aiohttp's parser says what its head means, so
that there is one judge of HTTP. Whatever else comes, and be it a request in two parts, is handed over with its bytes to
`ingest.connections`, where the connection stays.
"""

import asyncio
import hmac
from asyncio import get_running_loop
from typing import cast

from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from aiohttp.tcp_helpers import tcp_keepalive
from msgspec import Struct

from ingest.callbacks import Callbacks
from ingest.connections import FIRST_REQUEST_S, Connections, head_parser

_END_OF_HEAD = b"\r\n\r\n"

#: Headers that are somebody else's to understand.
_NOT_PLAIN = (hdrs.TRANSFER_ENCODING, hdrs.CONTENT_ENCODING, hdrs.EXPECT, hdrs.UPGRADE, hdrs.TRAILER)

#: So many heads are known, of this length at most: one sender has as many as its bodies have lengths.
_KNOWN = 512
_KNOWN_BYTES = 1024


class Head(Struct, frozen=True, kw_only=True):
    """What the head of a plain request says: how long its body is, and its traceparent."""

    size_bytes: int
    trace: str | None


class Heads:
    """Judges heads. What was judged before is known by its bytes, as a sender says the same again and again."""

    def __init__(self, *, path: str) -> None:
        self._path = path.encode()
        self._parser: HttpRequestParser | None = None
        self._known: dict[bytes, Head | None] = {}

    def judge(self, head: bytes) -> Head | None:
        """Return what `head` says, None if it is not that of a plain request. The empty line is its end."""
        try:
            return self._known[head]
        except KeyError:
            verdict = self._parse(head)
        if len(head) <= _KNOWN_BYTES:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[head] = verdict
        return verdict

    def _parse(self, head: bytes) -> Head | None:
        # A parser that has refused something, or has read the last request of a connection, reads nothing more.
        parser = self._parser or head_parser()
        self._parser = None
        try:
            messages, _, _ = parser.feed_data(head)
        except HttpProcessingError:
            return None
        if len(messages) != 1:
            return None
        verdict = self._read(messages[0][0], lines=head.count(b"\n"))
        if verdict is not None:
            self._parser = parser
        return verdict

    def _read(self, message: RawRequestMessage, *, lines: int) -> Head | None:
        headers = message.headers
        size = headers.get(hdrs.CONTENT_LENGTH, "")
        is_plain = (
            message.method == "POST"
            # It may hold a secret; the comparison takes as long wherever it differs.
            and hmac.compare_digest(message.path.encode("utf-8", "surrogateescape"), self._path)
            and message.version == (1, 1)
            and not message.should_close
            and not message.upgrade
            and not message.chunked
            and size.isdecimal()
            and not any(name in headers for name in _NOT_PLAIN)
            # Beside the headers there are the line of the request and the empty one: no header is folded, nothing was
            # passed over, and nothing is left in the parser.
            and lines == len(message.raw_headers) + 2
        )
        return Head(size_bytes=int(size), trace=headers.get("traceparent")) if is_plain else None


class PlainConnections:
    """Makes a protocol per connection, which is one of `connections` from then on. `heads` says what is plain."""

    def __init__(self, connections: Connections, callbacks: Callbacks, heads: Heads) -> None:
        self._connections = connections
        self._callbacks = callbacks
        self._heads = heads

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of one connection."""
        return _PlainConnection(self._connections, self._callbacks, self._heads)


class _PlainConnection(asyncio.Protocol):
    """A connection until it ends or is handed over. It waits for a request, or `is_answering` the last one.

    What comes meanwhile is held, one read of it, and handed over behind the answer: so there is never more than one
    request here, and answers leave in the order of their requests.
    """

    __slots__ = (
        "_callbacks",
        "_connections",
        "_heads",
        "_held",
        "_is_used",
        "_loop",
        "_silence_timer",
        "_unread_timer",
        "_waiting_since_s",
        "is_answering",
        "transport",
    )

    def __init__(self, connections: Connections, callbacks: Callbacks, heads: Heads) -> None:
        self._loop = get_running_loop()
        self._connections = connections
        self._callbacks = callbacks
        self._heads = heads
        self._held = b""
        self._is_used = False
        self._silence_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._waiting_since_s = 0.0
        self.is_answering = False
        self.transport: asyncio.Transport | None = None

    @property
    def waiting_since_s(self) -> float:
        return float("inf") if self.is_answering and self._unread_timer is None else self._waiting_since_s

    @property
    def is_expecting(self) -> bool:
        if self._held:
            return True
        is_new = not self._is_used and not self.is_answering
        return is_new and self._loop.time() - self._waiting_since_s < FIRST_REQUEST_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        # uvloop's is none by its class.
        self.transport = stream = cast("asyncio.Transport", transport)
        tcp_keepalive(stream)
        self._waiting_since_s = self._loop.time()
        self._silence_timer = self._loop.call_later(self._connections.keepalive_timeout_s, self._look_whether_silent)
        self._connections.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. What was begun goes on."""
        del exc
        self._connections.closed(self)
        self._let_go()

    def data_received(self, data: bytes) -> None:
        """Begin a plain request. Hand anything else over, what comes before the last answer behind it."""
        if self.is_answering:
            self._hold(data)
            return
        head_ends = data.find(_END_OF_HEAD)
        if head_ends < 0:
            self._hand_over(data)
            return
        body_begins = head_ends + len(_END_OF_HEAD)
        head = self._heads.judge(data[:body_begins])
        size_bytes = len(data) - body_begins
        if (
            head is None
            or head.size_bytes != size_bytes
            or not self._callbacks.takes_plainly(size_bytes)
            # The sender does not read its answers: there, somebody waits for it.
            or self._unread_timer is not None
        ):
            self._hand_over(data)
            return
        self.is_answering = True
        try:
            self._callbacks.begin(data[body_begins:], self._answer, trace=head.trace)
        except Exception:  # noqa: BLE001 - whoever reads it next meets the same defect, tells of it and answers
            self.is_answering = False
            self._hand_over(data)

    def pause_writing(self) -> None:
        """Wait for a sender that does not read its answers, but not for ever."""
        self._unread_timer = self._loop.call_later(self._connections.unread_timeout_s, self.abort)

    def resume_writing(self) -> None:
        """Go on: the sender reads."""
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def close(self) -> None:
        if not self.is_answering:
            self.force_close()

    def force_close(self) -> None:
        transport = self.transport
        if transport is not None:
            transport.close()
            if transport.get_write_buffer_size():
                self._loop.call_later(self._connections.unread_timeout_s, transport.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _answer(self, answer: bytes, closes: bool) -> None:
        self.is_answering = False
        transport = self.transport
        if transport is None or transport.is_closing():
            return  # the sender is gone
        transport.write(answer)
        self._is_used = True
        self._waiting_since_s = self._loop.time()
        if closes:
            self.force_close()
        elif self._held:
            transport.resume_reading()
            self._hand_over(self._held)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if self.transport is not None:
            self.transport.pause_reading()

    def _hand_over(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None:
            is_paused = self._unread_timer is not None
            self._let_go()
            self._connections.take_over(self, transport, data, is_used=self._is_used, is_paused=is_paused)

    def _let_go(self) -> None:
        self.transport = None
        self._held = b""
        for timer in (self._silence_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()

    def _look_whether_silent(self) -> None:
        timeout_s = self._connections.keepalive_timeout_s
        since_s = self._loop.time() if self.is_answering else self._waiting_since_s
        if since_s + timeout_s <= self._loop.time():
            self.force_close()
        else:
            self._silence_timer = self._loop.call_at(since_s + timeout_s, self._look_whether_silent)
