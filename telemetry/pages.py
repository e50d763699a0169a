"""The pages of the admin listener: what `telemetry.admin` imports once it listens."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from telemetry import metrics
from telemetry.metrics import CONTENT_TYPE, render_metrics

KEEPALIVE_TIMEOUT_S = 15.0


def make_runner(not_ready: Callable[[], Awaitable[tuple[str, ...]]]) -> web.AppRunner:
    """Return what serves the pages once it is set up; `not_ready` says what keeps this process from its work."""

    async def livez(request: web.Request) -> web.Response:
        del request
        return _json(200, {"live": True})

    async def readyz(request: web.Request) -> web.Response:
        del request
        reasons = await not_ready()
        return _json(503 if reasons else 200, {"ready": not reasons, "not_ready": reasons})

    async def metrics_page(request: web.Request) -> web.Response:
        del request
        metrics.READY.set(0 if await not_ready() else 1)
        # In a thread: with several processes it reads files.
        return web.Response(body=await asyncio.to_thread(render_metrics), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(middlewares=[_errors_as_json])
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_page)
    return web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEPALIVE_TIMEOUT_S, shutdown_timeout=1.0, auto_decompress=False
    )


async def listen(runner: web.AppRunner, host: str, port: int) -> int:
    """Let a runner that was set up listen there, and return its port: where `port` is 0, a free one."""
    site = web.TCPSite(runner, host, port)
    await site.start()
    return site.port


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
