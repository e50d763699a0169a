"""aiohttp's low-level server, with our limits, our answers to errors that it finds by itself, and less work.

What leans on the inside of aiohttp stands here, and tests/ingest/test_connections.py fails should a new version
change it.
"""

import time
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TypeAlias

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

#: For the headers of a connection's first request, and between requests.
KEEPALIVE_TIMEOUT_S = 15.0

#: How long the rest of a refused body is read and thrown away, so that the sender gets to see its answer.
LINGERING_S = 1.0

#: A request line or header longer than this is refused; the vendor sends a handful of short ones.
MAX_HEADER_BYTES = 4096
MAX_HEADERS = 64

Answer: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Makes the answer to a request that could not be answered: the status that aiohttp would give, and what happened.
OnError: TypeAlias = Callable[[int, BaseException | None], web.StreamResponse]


class Connections(web.Server):
    """Makes a protocol per connection. `answer` gets each request; `on_error` makes answers for broken ones."""

    def __init__(self, answer: Answer, *, on_error: OnError) -> None:
        super().__init__(answer)
        self.on_error = on_error

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of one connection."""
        return _Connection(self)


class _Connection(web.RequestHandler):
    __slots__ = ("_on_error",)

    def __init__(self, connections: Connections) -> None:
        super().__init__(
            connections,
            loop=get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # turns it off, as AppRunner does
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            lingering_time=LINGERING_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._on_error = connections.on_error

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer as everywhere else, and do not log what the request contains, as aiohttp does."""
        del request, message
        return self._on_error(status, exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading, if reading was paused: aiohttp asks for it twice per request, and feeds its parser nothing."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)


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

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it all, and wait while the sender does not read. Raises ConnectionError if it is gone."""
        now_s = int(time.time())
        if now_s != self._rendered_at_s:
            # A server with a clock sends the Date: https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
            self._rendered = self._head + formatdate(now_s, usegmt=True).encode() + self._rest
            self._rendered_at_s = now_s
        writer = request.writer
        await writer.write(self._rendered)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all is written."""
