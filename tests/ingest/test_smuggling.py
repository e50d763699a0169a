"""Requests that two servers could understand differently are refused, and nothing behind them is read."""

import pytest

from ingest.connections import MAX_HEADERS
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import PATH, connected, post, request
from tests.ingest.recording_transport import RecordingTransport

LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
BODY = callback()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HOST = b"Host: tests\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        LINE + HOST + LENGTH + CHUNKED + b"\r\n" + BODY,
        LINE + HOST + CHUNKED + LENGTH + b"\r\n" + b"0\r\n\r\n",
        LINE + HOST + LENGTH + LENGTH.replace(b": ", b": 1") + b"\r\n" + BODY,
        LINE + HOST + LENGTH.replace(b": ", b": +") + b"\r\n" + BODY,
        LINE + HOST + LENGTH.replace(b": ", b": -") + b"\r\n" + BODY,
        LINE + HOST + LENGTH.replace(b": ", b" : ") + b"\r\n" + BODY,
        LINE + HOST + b"Content-Length: 0x10\r\n\r\n" + BODY,
        LINE + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
        LINE + HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
        LINE + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + BODY,
        LINE + HOST + CHUNKED + b"\r\n" + b"g\r\n" + BODY,
        LINE + HOST + CHUNKED + b"\r\n" + b"-1\r\n" + BODY,
        LINE + HOST + CHUNKED + b"\r\n" + b"fffffffffffffffff\r\n" + BODY,
        LINE + HOST + b"X: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + HOST + b"X: a\0b\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + HOST + b"X\x01: a\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + HOST + b"X: " + b"x" * 5000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
        LINE + HOST + b"X: y\r\n" * (MAX_HEADERS + 1) + LENGTH + b"\r\n" + BODY,
        LINE.replace(b"HTTP/1.1", b"HTTP/9.9") + HOST + LENGTH + b"\r\n" + BODY,
        LINE.replace(b" HTTP", b"?" + b"q" * 5000 + b" HTTP") + HOST + LENGTH + b"\r\n" + BODY,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
    ],
)
async def test_an_ambiguous_or_malformed_request_is_refused_and_its_connection_closed(
    serve: Serve, transport: RecordingTransport, sent: bytes
) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(sent + request(callback(Timestamp=1)))
        answer = await connection.answer()
        assert answer.status == 400
        assert answer.content["error_code"] == 400
        assert await connection.is_closed_by_the_server()
    assert transport.published == []
    assert (await post(server.port, callback())).status == 200


async def test_what_follows_a_refused_body_is_not_taken_for_a_request(
    serve: Serve, transport: RecordingTransport
) -> None:
    inner = request(callback())
    server = await serve(max_body_bytes=len(inner) - 1)
    async with connected(server.port) as connection:
        await connection.send(request(inner))
        assert (await connection.answer()).status == 413
        assert await connection.is_closed_by_the_server()
    assert transport.published == []


async def test_an_upgrade_is_declined_and_what_follows_is_http(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        await connection.send(request(callback(), headers=headers) + request(callback(Timestamp=1)))
        statuses = [(await connection.answer()).status for _ in range(2)]
    assert statuses.count(200) == len(transport.published)
    assert set(statuses) <= {200, 400}
