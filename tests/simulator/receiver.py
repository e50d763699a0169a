"""A receiver that answers by a script, for tests of the sender. It checks signatures with code of its own."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiohttp import web

KEY = "Xz4ZgayTr7rMgWQrH"

#: What to do with a request.
Behaviour: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3_600)
    raise AssertionError("nobody waits for an hour")


async def close(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def hang_in_the_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "16"})
    await response.prepare(request)
    await response.write(b'{"error')
    return await hang(request)


def answer(status: int, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text='{"error_code":0}', headers=headers)

    return behave


OK = answer(200)


class Receiver:
    """Behaves by the script, then answers 200; keeps what came in."""

    def __init__(self, script: Sequence[Behaviour] = ()) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.requests: list[web.Request] = []
        self.reached = asyncio.Event()
        self._script = list(script)

    @property
    def members(self) -> list[dict[str, Any]]:
        """What came in, decoded."""
        return [json.loads(body) for body in self.bodies]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep the request and behave by the script."""
        self.bodies.append(await request.read())
        self.requests.append(request)
        self.reached.set()
        behave = self._script.pop(0) if self._script else OK
        return await behave(request)


def is_signed(members: dict[str, Any], key: str = KEY) -> bool:
    expected = hashlib.md5(f"{key}{members['ExpireTime']}".encode(), usedforsecurity=False).hexdigest()
    return bool(members["Sign"] == expected)


@asynccontextmanager
async def receiving(*script: Behaviour) -> AsyncIterator[Receiver]:
    receiver = Receiver(script)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks/tiw"
        yield receiver
    finally:
        await runner.cleanup()
