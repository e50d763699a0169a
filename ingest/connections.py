"""aiohttp's low-level server, with our limits, and with our answers to errors that it finds by itself."""

from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

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
