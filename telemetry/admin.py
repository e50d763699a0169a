r"""The admin listener: whether this process lives, whether it can work, and its metrics.

Around a hole in aiohttp's parser: the twelve bytes `CONNECT \r\n\r\n` pass as a request without a target.

Its `path` is None then, and its `url` is None or that of the request before it. The former ends the task of its
connection: nobody answers, and nobody closes it, ever. Seen in aiohttp 3.14.5: `_on_status_complete` in
https://github.com/aio-libs/aiohttp/blob/v3.14.5/aiohttp/_http_parser.pyx leaves both as they are if there is no target.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeAlias

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.typedefs import Handler
from msgspec import Struct
from yarl import URL

from telemetry import metrics
from telemetry.metrics import CONTENT_TYPE, render_metrics

_log = structlog.get_logger()

_NOWHERE = URL()


def with_target(message: RawRequestMessage) -> RawRequestMessage:
    """Return `message`, or where it has no target, one whose empty target leads nowhere: it is answered 404."""
    # The parser's types promise that there is one.
    if getattr(message, "path", None) is None:
        return message._replace(path="", url=_NOWHERE)
    return message


#: A check of readiness that takes longer counts as not ready.
READY_TIMEOUT_S = 2.0

KEEPALIVE_TIMEOUT_S = 15.0


class Readiness(Struct, frozen=True, kw_only=True):
    """Names what keeps a process from doing its work; nothing: it is ready."""

    not_ready: tuple[str, ...] = ()


ReadyCheck: TypeAlias = Callable[[], Readiness | Awaitable[Readiness]]


class AdminListener:
    """Serves `/livez`, `/readyz` and `/metrics` while it is entered.

    `/livez` answers 200 as long as the event loop turns. `/readyz` calls `ready` and answers 200 or 503 with
    `{"ready": ..., "not_ready": [...]}`; the metric `tiw_ready` says the same. `port` 0 takes a free one; the `port`
    attribute tells which. Entering raises OSError if the address cannot be had.
    """

    def __init__(self, host: str, port: int, *, ready: ReadyCheck) -> None:
        self._host = host
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self.port = port

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=KEEPALIVE_TIMEOUT_S, shutdown_timeout=1.0, auto_decompress=False
        )
        await self._runner.setup()
        give_every_request_a_target(self._runner)
        try:
            site = web.TCPSite(self._runner, self._host, self.port)
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = site.port
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        del request
        return _json(200, {"live": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        readiness = await self._readiness()
        ready = not readiness.not_ready
        return _json(200 if ready else 503, {"ready": ready, "not_ready": readiness.not_ready})

    async def _readiness(self) -> Readiness:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                answer = self._ready()
                return await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            return Readiness(not_ready=("the check of readiness took too long",))
        except Exception:  # noqa: BLE001 - a broken check means not ready, whatever broke
            _log.exception("readiness_check_failed")
            return Readiness(not_ready=("the check of readiness failed",))

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        metrics.READY.set(0 if (await self._readiness()).not_ready else 1)
        # In a thread: with several processes it reads files.
        return web.Response(body=await asyncio.to_thread(render_metrics), headers={"Content-Type": CONTENT_TYPE})


def give_every_request_a_target(runner: web.AppRunner) -> None:
    """Let a runner that was set up serve nothing but requests that `with_target` has seen."""
    server = runner.server
    assert server is not None  # noqa: S101 - it is made by `setup`
    factory = server.request_factory

    def request(message: RawRequestMessage, *others: Any) -> web.BaseRequest:
        return factory(with_target(message), *others)

    server.request_factory = request


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = _json(error.status, {"error": error.reason.lower()})
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")
