"""Connections that are slow, silent or greedy are ended, and are in no real callback's way."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

import ingest.connections
import ingest.request
from ingest import IngestServer
from ingest.config import Budget
from ingest.connections import MAX_HEAD_BYTES, connection_limit
from telemetry import render_metrics
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import PATH, Connection, connected, exchange, post, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

HEAD = f"POST {PATH} HTTP/1.1\r\nHost: tests\r\n".encode()


def evictions() -> float:
    return float(render_metrics().decode().partition("\ntiw_connections_evicted_total ")[2].partition("\n")[0])


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def drip(connection: Connection, data: bytes) -> None:
    """Send one byte at a time, for ever, until the server has had enough."""
    with suppress(ConnectionError):
        while True:
            for byte in data:
                await connection.send(bytes([byte]))
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("begin", "then"),
    [
        (b"", b""),
        (b"P", b"OST"),
        (HEAD + b"X-", b"a"),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A:b\r\n"),
        (HEAD + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n", b""),
        (HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", b"x"),
    ],
    ids=["silent", "line", "header", "body", "chunks", "trailers", "expect", "upgrade"],
)
async def test_who_is_silent_or_drips_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, begin: bytes, then: bytes
) -> None:
    monkeypatch.setattr(ingest.connections, "KEEPALIVE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(ingest.connections, "LINGERING_S", 0.1)
    server = await serve(budget=Budget(body_s=0.2))
    async with connected(server.port) as connection:
        await connection.send(begin)
        dripping = asyncio.create_task(drip(connection, then) if then else asyncio.sleep(0))
        async with asyncio.timeout(30):
            with suppress(ConnectionError):
                while await connection.reader.read(1000):
                    pass
        dripping.cancel()
        await asyncio.wait({dripping})
    await until(lambda: server._connections is not None and server._connections.count == 0)


async def open_with_small_buffers(server: IngestServer) -> socket.socket:
    """Connect such that little fits between the server and what is read here."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
    assert server._connections is not None
    await until(lambda: server._connections is not None and server._connections.count == 1)
    (connection,) = server._connections._open
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[attr-defined]
    return client


@pytest.mark.parametrize(
    ("requests", "headers"),
    [
        # More answers than the buffers take: the server stops answering, and waits.
        (2000, {}),
        # Fewer, and then the end: it would wait until the last of them is read.
        (250, {"Connection": "close"}),
        (250, {}),
    ],
)
async def test_who_does_not_read_its_answers_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, requests: int, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(ingest.connections, "UNREAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(ingest.connections, "KEEPALIVE_TIMEOUT_S", 0.5)
    server = await serve()
    with await open_with_small_buffers(server) as client:
        sent = request(b"{}") * requests + request(b"{}", headers=headers)
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(client, sent)
        await until(lambda: server._connections is not None and server._connections.count == 0, deadline_s=30)
    assert server._connections is not None
    await until(lambda: server._connections is not None and not server._connections.connections)


async def test_headers_together_are_bounded(serve: Serve) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        with suppress(ConnectionError):
            await connection.send(HEAD)
            for number in range(2 * MAX_HEAD_BYTES // 4000):
                await connection.send(b"X-%d: %b\r\n" % (number, b"x" * 4000))
        assert await connection.is_closed_by_the_server()
    assert (await post(server.port, callback())).status == 200


@pytest.mark.parametrize("begin", [b"", b"POST /", HEAD + b"Content-Length: 5\r\n\r\n1234", request(b"", path="/x")])
async def test_slow_connections_make_room_for_new_ones_the_oldest_first(
    serve: Serve, transport: RecordingTransport, stack: AsyncExitStack, begin: bytes
) -> None:
    server = await serve(max_connections=20)
    before = evictions()
    slow = []
    for _ in range(20):
        slow.append(await stack.enter_async_context(connected(server.port)))
        await slow[-1].send(begin)
    if begin.startswith(b"POST /x"):
        for connection in slow:
            assert (await connection.answer()).status == 404
    for number in range(10):
        assert (await exchange(server.port, request(callback(Timestamp=number)))).status == 200
    assert len(transport.published) == 10
    assert server._connections is not None
    assert server._connections.count <= 20
    assert evictions() > before


async def test_many_silent_connections_refuse_no_real_callback(serve: Serve, stack: AsyncExitStack) -> None:
    server = await serve(max_connections=100)
    for _ in range(5):
        opening = [connected(server.port) for _ in range(60)]
        await asyncio.gather(*(stack.enter_async_context(connection) for connection in opening))
        answers = await asyncio.gather(*(post(server.port, callback(Timestamp=number)) for number in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
    assert server._connections is not None
    assert server._connections.count <= 100


async def test_a_callback_that_is_complete_is_not_ended_for_another(
    serve: Serve, transport: RecordingTransport, stack: AsyncExitStack
) -> None:
    server = await serve(max_connections=5)
    transport.gate.clear()
    waiting = []
    for _ in range(5):
        waiting.append(await stack.enter_async_context(connected(server.port)))
        await waiting[-1].send(request(callback()))
    await until(lambda: transport.waiting == 5)
    async with connected(server.port) as another:
        assert await another.is_closed_by_the_server()
    transport.gate.set()
    assert [(await connection.answer()).status for connection in waiting] == [200] * 5


def test_connections_leave_descriptors_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for descriptors, limit in ((1024, 824), (100, 1), (10**6, 10_000), (resource.RLIM_INFINITY, 10_000)):
        monkeypatch.setattr("ingest.connections.resource.getrlimit", lambda _, n=descriptors: (n, n))
        assert connection_limit(10_000) == limit
