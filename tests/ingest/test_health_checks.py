"""Load balancers ask on the port of the callbacks how a node is."""

import asyncio

import pytest
import structlog

from telemetry import metrics
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import connected, exchange, post, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

TOKEN = "correct-horse_battery.staple~"


async def status_of(port: int, *, method: str = "GET", path: str = "/") -> int:
    async with connected(port) as connection:
        await connection.send(request(method=method, path=path))
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
    return int(head.split()[1])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/?from=lb"])
async def test_a_node_that_could_keep_a_callback_is_healthy(
    serve: Serve, transport: RecordingTransport, method: str, path: str
) -> None:
    server = await serve(path_token=TOKEN)
    assert await status_of(server.port, method=method, path=path) == 200
    transport.is_ready = False
    assert await status_of(server.port, method=method, path=path) == 503


async def test_the_answer_says_nothing_but_its_status(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    transport.is_ready = False
    answer = await exchange(server.port, request(method="GET", path="/healthz"))
    assert (answer.status, answer.body) == (503, b"")


async def test_health_checks_are_no_noise_in_log_and_metrics(serve: Serve) -> None:
    server = await serve()
    refused = "tiw_callbacks_refused_total", {"reason": "wrong_path"}
    before = metrics.REGISTRY.get_sample_value(*refused)
    with structlog.testing.capture_logs() as lines:
        for path in ("/", "/healthz"):
            assert await status_of(server.port, path=path) == 200
    assert lines == []
    assert metrics.REGISTRY.get_sample_value(*refused) == before


async def test_what_looks_like_one_and_is_none_is_refused(serve: Serve) -> None:
    server = await serve()
    for method, path in [("POST", "/"), ("GET", "/healthz/"), ("DELETE", "/"), ("GET", "//"), ("GET", "/health")]:
        assert await status_of(server.port, method=method, path=path) == 404


async def test_a_node_that_shuts_down_is_not_healthy_while_it_answers_what_is_here(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        transport.gate.clear()
        waiting = asyncio.create_task(post(server.port, callback()))
        await until(lambda: server.ready().not_ready == () and transport.waiting == 1)
        draining = asyncio.create_task(server.drain())
        await until(lambda: server.ready().not_ready == ("shutting down",))
        await connection.send(request(method="GET", path="/"))
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 503 ")
        assert "connection: close" in head.lower()
        transport.gate.set()
        assert (await waiting).status == 200
        await draining
