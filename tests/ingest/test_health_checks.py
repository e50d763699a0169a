"""Load balancers ask on the port of the callbacks how a node is."""

import asyncio
import socket
import struct

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


PROXY_HEADERS = {
    "v1": b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 8080\r\n",
    "v1, for a probe": b"PROXY UNKNOWN\r\n",
    "v2": b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x1f\x90",
    "v2, for a probe": b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
}


def refusals() -> float:
    """Return how many requests were refused, for whatever reason."""
    families = [family for family in metrics.REGISTRY.collect() if family.name == "tiw_callbacks_refused"]
    return sum(sample.value for family in families for sample in family.samples if sample.name.endswith("_total"))


async def test_probes_that_only_connect_are_no_noise_in_log_and_metrics(serve: Serve) -> None:
    server = await serve()
    before = refusals()
    with structlog.testing.capture_logs() as lines:
        for number in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if number % 2:
                # As haproxy ends its checks: with a reset.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        assert (await post(server.port, callback())).status == 200
    assert lines == []
    assert refusals() == before


@pytest.mark.parametrize("header", PROXY_HEADERS)
async def test_the_proxy_protocol_unasked_is_told_once_and_counted_as_no_refusal(serve: Serve, header: str) -> None:
    server = await serve()
    before = refusals()
    with structlog.testing.capture_logs() as lines:
        for behind in [b"", request(method="OPTIONS", path="/"), request(callback())] * 3:
            async with connected(server.port) as connection:
                await connection.send(PROXY_HEADERS[header] + behind)
                assert (await connection.answer()).status == 400
    assert [line["event"] for line in lines] == ["proxy_protocol_refused"]
    assert "send-proxy" in lines[0]["remedy"]
    assert refusals() == before


async def test_what_begins_like_it_later_is_a_malformed_request_like_any_other(serve: Serve) -> None:
    server = await serve()
    before = refusals()
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        assert (await connection.answer()).status == 200
        await connection.send(PROXY_HEADERS["v1"])
        assert (await connection.answer()).status == 400
    assert refusals() == before + 1


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
