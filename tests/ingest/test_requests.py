"""Every refusal on the way from headers to body, and their order."""

import asyncio
import json
from typing import Any

import pytest

from ingest.config import Budget
from telemetry import metrics
from tests.ingest import raw_http
from tests.ingest.callback_bodies import callback
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import chunked, connected, exchange, post, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until

UNSIGNED = json.dumps({"SdkAppId": 1400000001}).encode()
TOKEN = "correct-horse_battery.staple~"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
async def test_another_method_is_told_which_one_is_allowed(serve: Serve, method: str) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(method=method))
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 405 ")
    assert "\r\nAllow: POST\r\n" in head


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/callbacks", "/callbacks/tiw//", "/callbacks/tiw/x", "/Callbacks/tiw", "//callbacks/tiw"]
)
async def test_another_path_is_not_found(serve: Serve, path: str) -> None:
    server = await serve()
    answer = await post(server.port, callback(), path=path)
    assert answer.status == 404
    assert answer.content["error_code"] == 404
    assert answer.headers["content-type"] == "application/json"


async def test_with_a_path_token_only_the_whole_address_is_served(serve: Serve) -> None:
    server = await serve(path_token=TOKEN)
    for path in (
        "/callbacks/tiw",
        "/callbacks/tiw/",
        f"/callbacks/tiw/{TOKEN}//",
        f"/callbacks/tiw/{TOKEN[:-1]}",
        f"/callbacks/tiw/{TOKEN}x",
        "/callbacks/tiw/%C3%A9",
    ):
        assert (await post(server.port, callback(), path=path)).status == 404
    assert (await post(server.port, callback(), path=f"/callbacks/tiw/{TOKEN}")).status == 200


async def test_a_slash_at_the_end_does_not_matter(serve: Serve) -> None:
    server = await serve(path_token=TOKEN)
    for path in (f"/callbacks/tiw/{TOKEN}/", f"/callbacks/tiw/{TOKEN}/?from=console"):
        assert (await post(server.port, callback(), path=path)).status == 200


async def test_a_query_does_not_matter(serve: Serve) -> None:
    server = await serve()
    assert (await post(server.port, callback(), path="/callbacks/tiw?from=console")).status == 200


async def test_the_content_type_does_not_matter(serve: Serve) -> None:
    server = await serve()
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=nonsense",
    ):
        assert (await post(server.port, callback(), headers={"Content-Type": content_type})).status == 200


@pytest.mark.parametrize(
    ("coding", "status"),
    [("gzip", 415), ("br", 415), ("gzip, identity", 415), ("identity", 200), ("Identity", 200), ("utf-8", 200)],
)
async def test_only_plain_bodies_are_read(serve: Serve, coding: str, status: int) -> None:
    server = await serve()
    assert (await post(server.port, callback(), headers={"Content-Encoding": coding})).status == status


async def test_a_body_that_announces_its_size_is_refused_before_it_is_read(serve: Serve) -> None:
    server = await serve(max_body_bytes=1000)
    answer = await exchange(server.port, request(b"", content_length=1001))
    assert answer.status == 413
    assert answer.content["error_code"] == 413


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve(max_body_bytes=1000)
    endless = chunked(*[b" " * 400] * 3).removesuffix(b"0\r\n\r\n")
    assert (await exchange(server.port, endless)).status == 413
    assert (await exchange(server.port, chunked(callback()))).status == 200
    assert len(transport.published) == 1


async def test_the_largest_body_is_accepted_and_one_more_byte_is_not(serve: Serve) -> None:
    body = callback(Padding="x" * 500)
    server = await serve(max_body_bytes=len(body))
    assert (await post(server.port, body)).status == 200
    assert (await post(server.port, body + b" ")).status == 413


async def test_broken_chunks_are_a_bad_request(serve: Serve) -> None:
    server = await serve()
    answer = await exchange(server.port, chunked(b"{").removesuffix(b"0\r\n\r\n") + b"nonsense\r\n")
    assert answer.status == 400
    assert answer.content["error_code"] == 400


async def test_a_dripping_body_has_as_long_as_any_other(
    serve: Serve, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(budget=Budget(body_s=0.2))
    async with connected(server.port) as connection:
        await connection.send(request(b"{", content_length=10_000))
        answering = asyncio.create_task(connection.answer())
        while not answering.done():
            await connection.send(b" ")
            await asyncio.wait([answering], timeout=0.02)
        answer = await answering
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert transport.published == []


async def test_a_client_that_asks_whether_to_continue_is_told_so(serve: Serve) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        body = callback()
        await connection.send(request(b"", content_length=len(body), headers={"Expect": "100-continue"}))
        assert (await connection.answer()).status == 100
        await connection.send(body)
        assert (await connection.answer()).status == 200


async def test_a_client_that_asks_whether_to_continue_is_refused_before_it_sends(serve: Serve) -> None:
    server = await serve(max_body_bytes=100)
    answer = await exchange(server.port, request(b"", content_length=101, headers={"Expect": "100-continue"}))
    assert answer.status == 413


async def test_refusals_come_in_the_documented_order(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(budget=Budget(body_s=0.1), max_body_bytes=1000)
    good: dict[str, Any] = {"path": raw_http.PATH, "method": "POST", "headers": {}, "content_length": len(UNSIGNED)}
    wrongs: list[tuple[int, dict[str, Any]]] = [
        (404, {"path": "/wrong"}),
        (405, {"method": "PUT"}),
        (415, {"headers": {"Content-Encoding": "gzip"}}),
        (413, {"content_length": 1001}),
        (408, {"content_length": 999}),
        (401, {}),
    ]
    for number, (status, _) in enumerate(wrongs):
        all_later = dict(good)
        for _, wrong in reversed(wrongs[number:]):
            all_later |= wrong
        answer = await exchange(server.port, request(UNSIGNED, **all_later))
        assert answer.status == status
        assert answer.content["error_code"] == status
        assert answer.content["error_message"]


async def test_authenticity_comes_before_content(serve: Serve) -> None:
    server = await serve()
    assert (await post(server.port, b'{"SdkAppId": 1400000001, "EventType": 7}')).status == 401
    assert (await post(server.port, b'{"SdkAppId": 1400000001, "EventData": {"a": 1, "a": 2}}')).status == 401


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        request(callback(), headers={"X-Long": "x" * 9000}),
        request(callback(), headers={f"X-{number}": "x" for number in range(100)}),
        request(callback(), path="/callbacks/tiw?" + "x" * 9000),
        request(callback(), headers={"Content-Length": "-1"}),
        request(callback(), headers={"Content-Length": "5", "Transfer-Encoding": "chunked"}),
    ],
)
async def test_what_is_not_http_is_answered_in_json_as_well(
    serve: Serve, transport: RecordingTransport, data: bytes
) -> None:
    server = await serve()
    answer = await exchange(server.port, data)
    assert answer.status == 400
    assert answer.content["error_code"] == 400
    assert transport.published == []


async def test_a_sender_that_hangs_up_after_the_body_is_still_served(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    transport.gate.clear()
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        await until(lambda: transport.waiting == 1)
    transport.gate.set()
    await until(lambda: len(transport.published) == 1)


async def test_a_sender_that_hangs_up_in_the_body_is_not_published(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    counter = metrics.CALLBACKS_REFUSED.labels(reason="hung_up")
    before = counter._value.get()
    async with connected(server.port) as connection:
        await connection.send(request(callback()[:-1], content_length=len(callback())))
    await until(lambda: counter._value.get() == before + 1)
    assert transport.published == []


async def test_requests_share_a_connection(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    async with connected(server.port) as connection:
        await connection.send(request(callback()) + request(UNSIGNED) + request(callback()))
        assert [(await connection.answer()).status for _ in range(3)] == [200, 401, 200]
    assert len(transport.published) == 2
