r"""The admin listener: whether this process lives, whether it can work, and its metrics.

Around a hole in aiohttp's parser: the twelve bytes `CONNECT \r\n\r\n` pass as a request without a target.

Its `path` is None then, and its `url` is None or that of the request before it. The former ends the task of its
connection: nobody answers, and nobody closes it, ever. Seen in aiohttp 3.14.5: `_on_status_complete` in
https://github.com/aio-libs/aiohttp/blob/v3.14.5/aiohttp/_http_parser.pyx leaves both as they are if there is no target.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import structlog
from msgspec import Struct
from yarl import URL

if TYPE_CHECKING:
    # At run time `telemetry.pages` imports it, and that is imported where something listens: a worker whose parent
    # listens for it would start a quarter later, and have it in memory for ever.
    from aiohttp import web
    from aiohttp.http_parser import RawRequestMessage

_log = structlog.get_logger()

_NOWHERE = URL()


def with_target(message: "RawRequestMessage") -> "RawRequestMessage":
    """Return `message`, or where it has no target, one whose empty target leads nowhere: it is answered 404."""
    # The parser's types promise that there is one.
    if getattr(message, "path", None) is None:
        return message._replace(path="", url=_NOWHERE)
    return message


#: A check of readiness that takes longer counts as not ready.
READY_TIMEOUT_S = 2.0


class Readiness(Struct, frozen=True, kw_only=True):
    """Names what keeps a process from doing its work; nothing: it is ready."""

    not_ready: tuple[str, ...] = ()


ReadyCheck: TypeAlias = Callable[[], Readiness | Awaitable[Readiness]]

#: A page that takes longer is given up.
PAGE_TIMEOUT_S = 10.0


class AdminPageError(Exception):
    """Raised by a page that cannot answer: the status, and a sentence without secrets for who asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class AdminPage(Struct, frozen=True, kw_only=True):
    """A further page: a JSON document for who presents `Authorization: Bearer` and its token.

    `token` is asked at each request; where it is None there is no such page. `answer` gets the query, each name once,
    and returns the document; one call of it runs at a time, others wait for a moment. A body is refused.
    """

    method: Literal["GET", "POST"]
    path: str
    token: Callable[[], str | None]
    answer: Callable[[Mapping[str, str]], Awaitable[bytes]]
    timeout_s: float = PAGE_TIMEOUT_S


class AdminListener:
    """Serves `/livez`, `/readyz` and `/metrics` while it is entered.

    `/livez` answers 200 as long as the event loop turns. `/readyz` calls `ready` and answers 200 or 503 with
    `{"ready": ..., "not_ready": [...]}`; the metric `tiw_ready` says the same. `pages` are served besides. `port` 0
    takes a free one; the `port` attribute tells which. Entering raises OSError if the address cannot be had.
    """

    def __init__(self, host: str, port: int, *, ready: ReadyCheck, pages: Sequence[AdminPage] = ()) -> None:
        self._host = host
        self._ready = ready
        self._pages = pages
        self._runner: web.AppRunner | None = None
        self.port = port

    async def __aenter__(self) -> Self:
        from telemetry.pages import listen, make_runner  # noqa: PLC0415 - see above

        self._runner = make_runner(self._not_ready, self._pages)
        await self._runner.setup()
        give_every_request_a_target(self._runner)
        try:
            self.port = await listen(self._runner, self._host, self.port)
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _not_ready(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                answer = self._ready()
                return (await answer if inspect.isawaitable(answer) else answer).not_ready
        except TimeoutError:
            return ("the check of readiness took too long",)
        except Exception:  # noqa: BLE001 - a broken check means not ready, whatever broke
            _log.exception("readiness_check_failed")
            return ("the check of readiness failed",)


def give_every_request_a_target(runner: "web.AppRunner") -> None:
    """Let a runner that was set up serve nothing but requests that `with_target` has seen."""
    server = runner.server
    assert server is not None  # noqa: S101 - it is made by `setup`
    factory = server.request_factory

    def request(message: "RawRequestMessage", *others: Any) -> "web.BaseRequest":
        return factory(with_target(message), *others)

    server.request_factory = request
