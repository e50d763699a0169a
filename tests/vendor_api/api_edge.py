"""A server that answers as it is told, where the API would be: for what no honest API does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from vendor_api import Credentials, Limiter, VendorClient, parse_endpoint

#: Made up; long enough to be searched for.
SECRET_ID = "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE"
SECRET_KEY = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[str]:
    """Answer every request by `handler`; yields `http://HOST:PORT`."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(
    handler: Handler, *, timeout_s: float = 5.0, limiter: Limiter | None = None
) -> AsyncIterator[VendorClient]:
    """Yield a client whose API is `handler`."""
    async with (
        serve(handler) as url,
        VendorClient(
            Credentials(secret_id=SECRET_ID, secret_key=SECRET_KEY),
            endpoint=parse_endpoint(url),
            timeout_s=timeout_s,
            limiter=limiter,
        ) as client,
    ):
        yield client


def answering(content: bytes, content_type: str = "application/json", status: int = 200) -> Handler:
    """Return a handler that always answers this."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=content, status=status, headers={"Content-Type": content_type})

    return handle
