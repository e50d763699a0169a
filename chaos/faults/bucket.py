"""A proxy before an S3 server that fails as such servers do. Signatures pass through it."""

import asyncio
from collections import Counter
from enum import StrEnum
from random import Random
from typing import Final, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, web
from multidict import CIMultiDict
from yarl import URL

#: Of one hop, and no business of the next: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OF_ONE_HOP: Final = ("Connection", "Keep-Alive", "Transfer-Encoding", "Expect", "Upgrade")

#: Larger than any part of an upload.
_LARGEST_BYTES: Final = 64 * 1024 * 1024
_TIMEOUT_S: Final = 60.0


class BucketFailure(StrEnum):
    """What can become of a request to a bucket."""

    BUSY = "503"
    FORBIDDEN = "403"
    #: Of what is asked for alone: it is there, and a moment ago it was not.
    NOT_FOUND = "404"
    #: The connection is reset before anything is done.
    RESET = "reset"
    #: What was asked for is done; then the connection is reset.
    LOST_ANSWER = "lost answer"
    #: Half of the body reaches the server; then both connections are reset.
    TORN_UPLOAD = "torn upload"
    #: Half of the answer comes, then the connection ends.
    CUT_OFF = "cut off"
    #: The answer comes after `slow_s`.
    SLOW = "slow"
    #: The size that is told is not that of the object.
    WRONG_LENGTH = "wrong length"
    #: The ETag that is told is not that of the object, or part.
    CHANGED_ETAG = "changed etag"


_REFUSALS: Final[dict[BucketFailure | None, tuple[int, str]]] = {
    BucketFailure.BUSY: (503, "SlowDown"),
    BucketFailure.FORBIDDEN: (403, "AccessDenied"),
    BucketFailure.NOT_FOUND: (404, "NoSuchKey"),
}


class FaultyBucket:
    """Passes requests on to the S3 server at `url`; an async context manager.

    A `share` of them fails in a way that `rng` draws: both may be changed at any time. Signatures stay good, as the
    Host is passed on. `requests` counts all by method, `failed` those that failed by how.
    """

    def __init__(self, url: str, *, rng: Random, share: float = 0.0, slow_s: float = 2.0) -> None:
        self.share = share
        self.failures: tuple[BucketFailure, ...] = tuple(BucketFailure)
        self.requests: Counter[str] = Counter()
        self.failed: Counter[BucketFailure] = Counter()
        self.url = ""
        self._upstream = url
        self._rng = rng
        self._slow_s = slow_s
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=_LARGEST_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._session = ClientSession(
            auto_decompress=False, cookie_jar=DummyCookieJar(), timeout=ClientTimeout(total=_TIMEOUT_S)
        )
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.method] += 1
        failure = self._draw(request)
        if failure in _REFUSALS:
            return _refusal(*_REFUSALS[failure])
        if failure is BucketFailure.SLOW:
            await asyncio.sleep(self._slow_s)
        if failure is BucketFailure.TORN_UPLOAD:
            await self._tear(request)
        if failure in (BucketFailure.RESET, BucketFailure.TORN_UPLOAD):
            return _reset(request)
        try:
            status, headers, body = await self._pass_on(request)
        except (OSError, ClientError):
            # The server is away: whoever asked for it here learns that in the same way.
            return _reset(request)
        if failure is BucketFailure.LOST_ANSWER:
            return _reset(request)
        return await _answer(request, status, headers, body, failure)

    def _draw(self, request: web.Request) -> BucketFailure | None:
        if self._rng.random() >= self.share:
            return None
        possible = [failure for failure in self.failures if _befalls(failure, request)]
        if not possible:
            return None
        failure = self._rng.choice(possible)
        self.failed[failure] += 1
        return failure

    async def _pass_on(self, request: web.Request) -> tuple[int, CIMultiDict[str], bytes]:
        if self._session is None:
            raise RuntimeError("enter the proxy before it is used")
        headers = CIMultiDict(request.headers)
        for name in _OF_ONE_HOP:
            headers.popall(name, None)
        # As it was written: what is encoded differently has another signature.
        url = URL(f"{self._upstream}{request.raw_path}", encoded=True)
        body = await request.read()
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            answered = CIMultiDict(answer.headers)
            for name in _OF_ONE_HOP:
                answered.popall(name, None)
            return answer.status, answered, await answer.read()

    async def _tear(self, request: web.Request) -> None:
        """Send half of a request on, and close that connection."""
        body = await request.read()
        upstream = URL(self._upstream)
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        del reader
        head = [f"{request.method} {request.raw_path} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in request.headers.items() if name not in _OF_ONE_HOP]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body[: len(body) // 2])
        await writer.drain()
        writer.transport.abort()


def _befalls(failure: BucketFailure, request: web.Request) -> bool:
    """Say whether it can happen to such a request."""
    is_reading = request.method in ("GET", "HEAD")
    match failure:
        case BucketFailure.NOT_FOUND:
            return is_reading
        case BucketFailure.TORN_UPLOAD | BucketFailure.CHANGED_ETAG:
            return request.method == "PUT"
        case BucketFailure.CUT_OFF:
            return request.method in ("GET", "POST")
        case BucketFailure.WRONG_LENGTH:
            return request.method == "HEAD"
        case _:
            return True


async def _answer(
    request: web.Request, status: int, headers: CIMultiDict[str], body: bytes, failure: BucketFailure | None
) -> web.StreamResponse:
    size = int(headers.get("Content-Length", len(body)))
    if failure is BucketFailure.WRONG_LENGTH:
        size //= 2
    if failure is BucketFailure.CHANGED_ETAG and "ETag" in headers:
        headers["ETag"] = '"00000000000000000000000000000000"'
    headers["Content-Length"] = str(size)
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    if request.method != "HEAD":
        is_cut = failure is BucketFailure.CUT_OFF and len(body) > 1
        await response.write(body[: len(body) // 2] if is_cut else body)
        if is_cut and request.transport is not None:
            request.transport.close()
    return response


def _refusal(status: int, code: str) -> web.Response:
    body = f"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>{code}</Code></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
