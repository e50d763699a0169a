"""What leans on the inside of aiohttp: if a new version changes that, these fail."""

import asyncio
import inspect
import time
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from ingest.connections import RenderedAnswer
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import PATH, connected, exchange, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

KEPT = b'{"error_code":0}'


def spoken(version: str, *, connection: str = "") -> bytes:
    """Return a callback in this version of HTTP."""
    line = f"Connection: {connection}\r\n" if connection else ""
    body = callback()
    head = f"POST {PATH} HTTP/{version}\r\nHost: tests\r\n{line}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_the_answer_that_is_written_as_it_stands_is_a_complete_one(serve: Serve) -> None:
    server = await serve()
    answer = await exchange(server.port, request(callback()))
    assert (answer.status, answer.body) == (200, KEPT)
    assert set(answer.headers) == {"content-type", "content-length", "date"}
    assert answer.headers["content-type"] == "application/json"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 5
    assert answer.headers["date"].endswith(" GMT")


async def test_its_date_is_that_of_now(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        for now_s, date in ((784111777, "Sun, 06 Nov 1994 08:49:37 GMT"), (784111778, "Sun, 06 Nov 1994 08:49:38 GMT")):
            await connection.send(request(callback()))
            await connection.answer()
            monkeypatch.setattr("ingest.connections.time.time", lambda now_s=now_s: float(now_s))
            await connection.send(request(callback()))
            assert (await connection.answer()).headers["date"] == date


@pytest.mark.parametrize(
    ("version", "connection", "answered", "closes"),
    [
        ("1.1", "", None, False),
        ("1.1", "keep-alive", None, False),
        ("1.1", "close", "close", True),
        ("1.1", "Close", "close", True),
        ("1.0", "", None, True),
        ("1.0", "keep-alive", "keep-alive", False),
        ("1.0", "close", None, True),
    ],
)
async def test_a_connection_stays_open_as_the_sender_asks(
    serve: Serve, version: str, connection: str, answered: str | None, closes: bool
) -> None:
    server = await serve()
    async with connected(server.port) as conversation:
        await conversation.send(spoken(version, connection=connection))
        answer = await conversation.answer()
        assert (answer.status, answer.body) == (200, KEPT)
        assert answer.headers.get("connection") == answered
        if closes:
            assert await conversation.is_closed_by_the_server()
        else:
            await conversation.send(spoken("1.1"))
            assert (await conversation.answer()).status == 200


async def test_more_requests_at_once_than_aiohttp_queues_are_all_answered_in_order(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    count = 200  # aiohttp stops reading at 32
    async with connected(server.port) as connection:
        pairs = [request(callback(Timestamp=number)) + request(b"{}") for number in range(count)]
        await connection.send(b"".join(pairs))
        statuses = [(await connection.answer()).status for _ in range(2 * count)]
    assert statuses == [200, 401] * count
    assert len(transport.published) == count


async def test_reading_goes_on_after_it_was_paused(serve: Serve, transport: RecordingTransport) -> None:
    # aiohttp pauses a connection whose body fills its buffer of 512 KiB, and behind it the next one waits.
    body = callback(Padding="x" * 900_000)
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(body) + request(callback()) + request(body))
        assert [(await connection.answer()).status for _ in range(3)] == [200, 200, 200]
    assert len(transport.published) == 3


async def test_a_sender_that_reads_no_answers_is_waited_for(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        await connection.answer()
        assert server._connections is not None
        (open_one,) = server._connections._open
        stream: asyncio.Transport = open_one.transport  # type: ignore[attr-defined]
        stream.get_protocol().pause_writing()  # as the event loop does when too much is not read
        await connection.send(request(callback()) * 2)
        await connection.answer()
        await asyncio.sleep(0.05)
        assert len(transport.published) == 2
        stream.get_protocol().resume_writing()
        await connection.answer()
        assert len(transport.published) == 3


async def test_a_sender_that_is_gone_when_its_answer_is_due_does_no_harm(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    transport.gate.clear()
    async with connected(server.port) as connection:
        await connection.send(request(callback()) * 3)
        await until(lambda: transport.waiting == 1)
    transport.gate.set()
    await until(lambda: server._callbacks.running == 0)
    assert (await exchange(server.port, request(callback()))).status == 200


def test_aiohttp_is_built_as_ingest_takes_it_to_be() -> None:
    assert {"_reading_paused", "_buffer_paused"} <= set(BaseProtocol.__slots__)
    assert list(inspect.signature(BaseProtocol.resume_reading).parameters) == ["self", "resume_parser"]
    finishing = inspect.getsource(web.RequestHandler.finish_response)
    assert "await prepare_meth(request)\n            await resp.write_eof()" in finishing
    assert "bool(resp.keep_alive)" in inspect.getsource(web.RequestHandler.start)
    answer = RenderedAnswer(b"{}", content_type="application/json")
    assert answer.keep_alive
    # What tells a connection that waits for the sender from one whose request is being answered.
    looked_at = {"_messages", "_waiter", "_request_count", "_current_request", "_next_keepalive_close_time"}
    assert looked_at <= set(web.RequestHandler.__slots__)
    assert "_paused" in BaseProtocol.__slots__
    starting = inspect.getsource(web.RequestHandler.start)
    assert "await self._waiter\n                finally:\n                    self._waiter = None" in starting
    assert "self._next_keepalive_close_time = close_time" in starting
