"""The server's life: starting without a broker, and ending without losing what is in flight."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import structlog
from aiohttp import http_parser

import ingest.connections
import ingest.server
from ingest import IngestConfig, IngestServer, KeyRing
from ingest.request import require_safe_http
from tests.ingest.callback_bodies import KEYS, callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import connected, exchange, post, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until


async def test_it_serves_while_the_broker_is_away(serve: Serve, transport: RecordingTransport) -> None:
    transport.is_ready = False
    server = await serve()
    assert server.ready().not_ready == ("neither the broker nor the spool takes anything",)
    assert (await post(server.port, callback())).status == 200
    transport.is_ready = True
    assert server.ready().not_ready == ()


async def test_a_drain_finishes_what_is_in_flight(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    transport.gate.clear()
    async with (
        connected(server.port) as publishing,
        connected(server.port) as uploading,
        connected(server.port) as idle,
    ):
        body = callback()
        await publishing.send(request(body))
        await uploading.send(request(body[:20], content_length=len(body)))
        await until(lambda: transport.waiting == 1 and server._callbacks.running == 2)
        draining = asyncio.create_task(server.drain())
        await until(lambda: "shutting down" in server.ready().not_ready)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        await uploading.send(body[20:])
        await until(lambda: transport.waiting == 2)
        assert not draining.done()
        transport.gate.set()
        for connection in (publishing, uploading):
            answer = await connection.answer()
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
        await draining
        assert await idle.is_closed_by_the_server()
    assert len(transport.published) == 2


async def test_who_waits_to_be_accepted_when_a_drain_begins_is_answered(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    with ExitStack() as stack:
        # The loop gets no turn to accept them.
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10)) for _ in range(50)]
        for one in waiting:
            one.sendall(request(callback()))
        await server.drain()
        answers = [one.recv(1000) for one in waiting]
    assert all(answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close" in answer for answer in answers)
    assert len(transport.published) == len(waiting)


async def test_who_has_just_connected_when_a_drain_begins_may_still_send(
    serve: Serve, transport: RecordingTransport
) -> None:
    # A load balancer connects, and on a busy machine it sends a moment later. It does not repeat what is cut off.
    server = await serve()
    body = callback()
    async with connected(server.port) as silent, connected(server.port) as half:
        await half.send(request(body)[:20])
        draining = asyncio.create_task(server.drain())
        await until(lambda: server._listener is not None and not server._listener.is_serving())
        await asyncio.sleep(0.1)
        await silent.send(request(body))
        await half.send(request(body)[20:])
        for connection in (silent, half):
            answer = await connection.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        await draining
    assert len(transport.published) == 2


async def test_with_a_delay_a_drain_goes_on_accepting_while_health_checks_say_no(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve(stop_delay_s=0.5)
    draining = asyncio.create_task(server.drain())
    await until(lambda: "shutting down" in server.ready().not_ready)
    health = await exchange(server.port, request(method="GET", path="/healthz"))
    assert (health.status, health.headers["connection"]) == (503, "close")
    answer = await post(server.port, callback())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert not draining.done()
    await draining
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_drain_is_bounded(serve: Serve, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.server, "DRAIN_TIMEOUT_S", 0.1)
    monkeypatch.setattr(ingest.server, "CLOSE_TIMEOUT_S", 0.1)
    server = await serve()
    transport.gate.clear()
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        await until(lambda: transport.waiting == 1)
        await server.drain()
        assert await connection.is_closed_by_the_server()


@pytest.mark.parametrize("beginning", [b"", b"POST /callbacks/tiw HTTP/1.1\r\nHost: te"])
async def test_a_silent_connection_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    monkeypatch.setattr(ingest.connections, "KEEPALIVE_TIMEOUT_S", 0.1)
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(beginning)
        assert await connection.is_closed_by_the_server()


async def test_a_connection_that_is_silent_after_a_callback_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.connections, "KEEPALIVE_TIMEOUT_S", 0.1)
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        assert (await connection.answer()).status == 200
        assert await connection.is_closed_by_the_server()


async def test_two_servers_share_a_port(serve: Serve, transport: RecordingTransport) -> None:
    first = await serve(reuse_port=True)
    config = IngestConfig(port=first.port, reuse_port=True)
    async with IngestServer(config, transport, KeyRing(KEYS)) as second:
        assert second.port == first.port
        await first.drain()
        assert (await post(second.port, callback())).status == 200


async def test_an_address_that_is_taken_stops_the_start(serve: Serve, transport: RecordingTransport) -> None:
    first = await serve()
    with pytest.raises(OSError, match="address already in use"):
        async with IngestServer(IngestConfig(port=first.port), transport, KeyRing(KEYS)):
            pass


async def test_it_refuses_to_start_without_the_c_parser(
    transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(RuntimeError, match="without its C parser: unset"):
        async with IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)):
            pass


@pytest.mark.parametrize("version", ["3.14.4", "3.9.5", "3.14.4.post1"])
async def test_it_refuses_to_start_with_an_aiohttp_that_has_known_holes(
    transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("aiohttp.__version__", version)
    with pytest.raises(RuntimeError, match=r"known holes: install 3\.14\.5 or newer"):
        async with IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)):
            pass


@pytest.mark.parametrize("version", ["3.14.5", "3.15.0a1", "4.0.0"])
def test_a_newer_aiohttp_will_do(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr("aiohttp.__version__", version)
    require_safe_http()


async def test_a_defect_of_ours_is_an_answer_and_a_log_line(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(admitted: object, **_: object) -> None:
        raise KeyError(admitted)

    monkeypatch.setattr("ingest.callbacks.message_of", broken)
    with structlog.testing.capture_logs() as logs:
        server = await serve()
        answer = await post(server.port, callback())
    assert (answer.status, answer.content["error_code"]) == (500, 500)
    (failed,) = [entry for entry in logs if entry["event"] == "answering_failed"]
    assert failed["error"] == "KeyError"
    assert "test_server.py" in failed["frames"][-1]
    assert "tic_record_user" not in repr(failed)


@pytest.mark.parametrize("token", ["short", "twenty-two characters and a blank", "x" * 30 + "/"])
def test_a_path_token_that_would_not_work_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="at least 22 characters"):
        IngestConfig(path_token=token)


async def test_a_clock_that_is_years_behind_is_told_at_the_start(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, transport: RecordingTransport
) -> None:
    body = callback()
    monkeypatch.setattr("ingest.server.time.time", lambda: 1_000_000_000.0)
    monkeypatch.setattr("ingest.callbacks.time.time_ns", lambda: 1_000_000_000 * 10**9)
    with structlog.testing.capture_logs() as logs:
        server = await serve()
    assert [entry["now"] for entry in logs if entry["event"] == "clock_wrong"] == ["2001-09-09 01:46:40"]
    assert (await post(server.port, body)).status == 200
    assert [message.routing_key for message in transport.published] == ["OnlineRecordStarted"]
