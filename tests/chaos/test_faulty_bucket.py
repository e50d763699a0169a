"""The proxy before a bucket fails as it is told to, and passes everything else on as it came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from chaos.faults.bucket import BucketFailure, FaultyBucket

BODY = b"0123456789" * 1_000


class Server:
    """Says of each request what it was, and keeps what was put."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.put: list[bytes] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.raw_path, request.headers["Host"]))
        if request.method == "PUT":
            self.put.append(await request.read())
        return web.Response(body=BODY, headers={"ETag": '"the-tag"'})


@asynccontextmanager
async def failing(*failures: BucketFailure) -> AsyncIterator[tuple[Server, FaultyBucket, aiohttp.ClientSession]]:
    """Yield a server, a proxy before it of which each request that can fails so, and a session."""
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with FaultyBucket(server.url, rng=Random(1), slow_s=0.05) as proxy, aiohttp.ClientSession() as session:
            proxy.share, proxy.failures = float(bool(failures)), failures
            yield server, proxy, session
    finally:
        await runner.cleanup()


async def test_what_does_not_fail_passes_as_it_came() -> None:
    async with failing() as (server, proxy, session):
        url = URL(f"{proxy.url}/classes/a%20b/c?partNumber=1&uploadId=x%2Fy", encoded=True)
        async with session.put(url, data=BODY) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (200, BODY, '"the-tag"')
        assert server.put == [BODY]
        # The Host is signed: it is the one that the client meant.
        assert server.seen == [
            ("PUT", "/classes/a%20b/c?partNumber=1&uploadId=x%2Fy", proxy.url.removeprefix("http://"))
        ]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(BucketFailure.BUSY, 503), (BucketFailure.FORBIDDEN, 403), (BucketFailure.NOT_FOUND, 404)],
)
async def test_a_refusal_does_not_reach_the_server(failure: BucketFailure, status: int) -> None:
    async with failing(failure) as (server, proxy, session):
        async with session.get(f"{proxy.url}/classes/a") as answer:
            assert answer.status == status
        assert server.seen == []
        assert proxy.failed == {failure: 1}


@pytest.mark.parametrize(
    ("failure", "is_put"),
    [(BucketFailure.RESET, False), (BucketFailure.TORN_UPLOAD, False), (BucketFailure.LOST_ANSWER, True)],
)
async def test_a_connection_is_reset_before_in_the_middle_of_or_after_what_it_asks_for(
    failure: BucketFailure, is_put: bool
) -> None:
    async with failing(failure) as (server, proxy, session):
        with pytest.raises(aiohttp.ClientError):
            await session.put(f"{proxy.url}/classes/a", data=BODY)
        # A session asks once more by itself.
        assert bool(server.put) == is_put
        assert bool(server.seen) == (failure is not BucketFailure.RESET)


async def test_an_answer_is_cut_off_in_its_middle() -> None:
    async with failing(BucketFailure.CUT_OFF) as (_, proxy, session), session.get(f"{proxy.url}/classes/a") as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_size_is_told_that_is_not_the_objects() -> None:
    async with failing(BucketFailure.WRONG_LENGTH) as (_, proxy, session):
        answer = await session.head(f"{proxy.url}/classes/a")
        assert answer.headers["Content-Length"] == str(len(BODY) // 2)


async def test_an_etag_is_told_that_is_not_the_objects() -> None:
    async with failing(BucketFailure.CHANGED_ETAG) as (server, proxy, session):
        answer = await session.put(f"{proxy.url}/classes/a", data=BODY)
        assert answer.headers["ETag"] != '"the-tag"'
        assert server.put == [BODY]


async def test_a_slow_answer_is_whole() -> None:
    async with failing(BucketFailure.SLOW) as (_, proxy, session):
        answer = await session.get(f"{proxy.url}/classes/a")
        assert await answer.read() == BODY
        assert proxy.failed == {BucketFailure.SLOW: 1}


async def test_what_cannot_happen_to_a_request_does_not() -> None:
    async with failing(BucketFailure.TORN_UPLOAD, BucketFailure.CHANGED_ETAG) as (_, proxy, session):
        answer = await session.get(f"{proxy.url}/classes/a")
        assert await answer.read() == BODY
        assert not proxy.failed
