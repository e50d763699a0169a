"""An HTTP endpoint that answers as it is told and remembers what came."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict


@dataclass(kw_only=True)
class Request:
    """What came."""

    headers: CIMultiDict[str]
    body: bytes


@dataclass(kw_only=True)
class Endpoint:
    """What it answers, and what came so far."""

    url: str
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    requests: list[Request] = field(default_factory=list)


@asynccontextmanager
async def run_endpoint() -> AsyncIterator[Endpoint]:
    """Serve on a free port of loopback while the block runs."""

    async def answer(request: web.Request) -> web.Response:
        endpoint.requests.append(Request(headers=CIMultiDict(request.headers), body=await request.read()))
        if endpoint.hangs_up and request.transport is not None:
            request.transport.abort()
            await asyncio.sleep(0)
        return web.Response(status=endpoint.status, body=endpoint.body, headers=endpoint.headers)

    app = web.Application()
    app.router.add_post("/hook", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        endpoint = Endpoint(url=f"http://127.0.0.1:{port}/hook?key=very-secret")
        yield endpoint
    finally:
        await runner.cleanup()
