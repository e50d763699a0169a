"""The pages of the admin listener: what `telemetry.admin` imports once it listens."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from telemetry import metrics
from telemetry.admin import AdminPage, AdminPageError
from telemetry.metrics import CONTENT_TYPE, render_metrics

KEEPALIVE_TIMEOUT_S = 15.0

#: How long a request waits for the one before it at the same page.
TURN_TIMEOUT_S = 2.0

_log = structlog.get_logger()


def make_runner(not_ready: Callable[[], Awaitable[tuple[str, ...]]], pages: Sequence[AdminPage] = ()) -> web.AppRunner:
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
    for page in pages:
        app.router.add_route(page.method, page.path, _guarded(page))
    return web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEPALIVE_TIMEOUT_S, shutdown_timeout=1.0, auto_decompress=False
    )


def _guarded(page: AdminPage) -> Handler:
    """Return the handler of a page that answers who presents its token, one at a time."""
    turn = asyncio.Lock()

    async def handle(request: web.Request) -> web.Response:
        _authorize(request, page.token())
        if request.can_read_body:
            raise AdminPageError(413, "this page takes no body")
        query = dict(request.query)
        if len(query) != len(request.query):
            raise AdminPageError(400, "a name stands twice in the query")
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await turn.acquire()
        except TimeoutError:
            raise AdminPageError(503, "another request for this page is under way: ask again") from None
        try:
            async with asyncio.timeout(page.timeout_s):
                document = await page.answer(query)
        except TimeoutError:
            raise AdminPageError(503, f"this took longer than {page.timeout_s:g} s, and was given up") from None
        finally:
            turn.release()
        return web.Response(body=document, content_type="application/json", headers={hdrs.CACHE_CONTROL: "no-store"})

    return handle


def _authorize(request: web.Request, token: str | None) -> None:
    if token is None:
        # As any address where nothing is.
        raise web.HTTPNotFound
    given = request.headers.get(hdrs.AUTHORIZATION, "").encode("utf-8", "surrogateescape")
    # Takes as long wherever it differs.
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


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
        for name in (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE):
            if name in error.headers:
                answer.headers[name] = error.headers[name]
    except AdminPageError as error:
        answer = _json(error.status, {"error": str(error)})
    except Exception:  # noqa: BLE001 - whatever broke: who asked is told, in the same form
        _log.exception("admin_page_failed", path=request.path)
        answer = _json(500, {"error": "this page failed: the log says why"})
    if answer.status == web.HTTPRequestEntityTooLarge.status_code:
        # What was sent is not read.
        answer.force_close()
    return answer


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")
