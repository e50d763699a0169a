"""From an authentic callback to a message that travels, or to the answer that it was not kept."""

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import ingest.callbacks
from broker import NotPublishedError
from ingest import IngestConfig, IngestServer, KeyRing
from ingest.config import Budget
from schemas import EVENT_TYPES, event_id, read_members
from telemetry import render_metrics
from tests.ingest.callback_bodies import KEYS, SAMPLES, SDK_APP_ID, callback, sign_of, signed_anew, soon
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import connected, post, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until
from tests.profiles import examples

DOCUMENTED = {200, 400, 401, 408, 413, 503}


@pytest.mark.parametrize("sample", [path.read_bytes() for path in SAMPLES], ids=[path.stem for path in SAMPLES])
async def test_a_sample_travels_without_its_sign(serve: Serve, transport: RecordingTransport, sample: bytes) -> None:
    server = await serve(allow_unsigned=frozenset({0}))
    sent = signed_anew(sample)
    answer = await post(server.port, sent)
    assert (answer.status, answer.body) == (200, b'{"error_code":0}')
    (message,) = transport.published
    came, went = read_members(sent), read_members(message.body)
    assert set(came) - set(went) == {"Sign", "ExpireTime"} & set(came)
    assert {name: bytes(value) for name, value in went.items()} == {name: bytes(came[name]) for name in went}
    envelope = json.loads(sent)
    known = envelope["EventType"] in EVENT_TYPES
    assert message.routing_key == (envelope["EventType"] if known else "unrecognized")
    assert message.event_id == event_id(
        envelope.get("SdkAppId", 0), envelope["EventType"], envelope["Timestamp"], envelope["EventData"]
    )
    assert message.attempt == 1


async def test_a_callback_signed_anew_is_the_same_event(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    for expire_time in (soon(), soon() + 1):
        assert (await post(server.port, callback(expire_time=expire_time))).status == 200
    first, second = transport.published
    assert first.event_id == second.event_id
    assert first.body == second.body


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b'"t1"', b'"\xff"'),
        lambda body: body.replace(b'"t1"', b'"\\ud800"'),
        lambda body: body.replace(b'"t1"', b'"\\x"'),
        lambda body: body.replace(b'"t1"', b'"a\nb"'),
        lambda body: body.replace(b'"t1"', b"NaN"),
        lambda body: body.replace(b'"t1"', b"[1 2]"),
        lambda body: body.replace(b'"t1"', b"[" * 100_000 + b"]" * 100_000),
        lambda body: body.replace(b'"TaskId"', b'"RoomId": 1, "TaskId"'),
        lambda body: body.replace(b'"Timestamp"', b'"EventType": "OnlineRecordStopped", "Timestamp"'),
        lambda body: body.replace(b"1575545412", b"1" * 5000),
        lambda body: body.replace(b'"EventType"', b'"EventKind"'),
    ],
    ids=[
        "not UTF-8", "a surrogate", "a bad escape", "a control character", "NaN", "no commas", "deep",
        "a nested duplicate", "a duplicate", "a huge number", "no EventType",
    ],
)  # fmt: skip
async def test_authentic_content_that_nobody_understands_is_kept_whole(
    serve: Serve, transport: RecordingTransport, change: Callable[[bytes], bytes]
) -> None:
    server = await serve()
    body = callback()
    sent = change(body)
    assert sent != body
    assert (await post(server.port, sent)).status == 200
    (message,) = transport.published
    assert message.routing_key == "unrecognized"
    assert sign_of(body).encode() not in message.body
    assert b'"ExpireTime"' not in message.body
    event_data = sent[sent.index(b'"EventData": ') + len(b'"EventData": ') : sent.index(b', "Timestamp"')]
    assert event_data.partition(b', "EventType"')[0] in message.body


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda body: body[:-1], 400),
        (lambda body: body + b"x", 400),
        (lambda body: b"[" + body + b"]", 400),
        (lambda body: body.replace(b'"Sign"', b'"Sign": "x", "Sign"'), 400),
        (lambda body: body.replace(b'"Sign"', b'"\\u0053ign": "x", "Sign"'), 400),
        (lambda body: body.replace(b'"SdkAppId"', b'"SdkAppId": 1, "SdkAppId"'), 400),
        (lambda body: body.replace(b'"ExpireTime"', b'"ExpireTime": 1, "ExpireTime"'), 400),
        (lambda body: body.replace(b'"Sign"', b'"EventData": {"Sign": 1}, "Sign"'), 200),
        (lambda body: body.replace(b'"Sign"', b'"\\u0053\\u0069gn"'), 200),
        (lambda body: body.replace(b'"Sign"', b'"sign"'), 401),
        (lambda body: b'{"a": ' + body + b"}", 401),
        (lambda _: b"", 400),
        (lambda _: b"null", 400),
        (lambda _: b"{}", 401),
        (lambda body: body.decode().encode("utf-16")[:-1], 400),
        (lambda body: body.decode().encode("utf-32"), 400),
    ],
)
async def test_what_lenient_reading_cannot_settle_is_refused(
    serve: Serve, transport: RecordingTransport, change: Callable[[bytes], bytes], status: int
) -> None:
    server = await serve()
    assert (await post(server.port, change(callback()))).status == status
    assert len(transport.published) == (status == 200)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    ],
    ids=["UTF-8", "UTF-16", "UTF-16, the other way round"],
)
async def test_a_byte_order_mark_is_no_part_of_a_callback(
    serve: Serve, transport: RecordingTransport, encode: Callable[[str], bytes]
) -> None:
    server = await serve()
    body = callback()
    assert (await post(server.port, body)).status == 200
    assert (await post(server.port, encode(body.decode()))).status == 200
    plain, marked = transport.published
    assert (marked.body, marked.event_id, marked.routing_key) == (plain.body, plain.event_id, plain.routing_key)
    assert marked.routing_key != "unrecognized"


async def test_a_callback_that_was_not_confirmed_is_not_kept(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    transport.error = NotPublishedError("no confirm")
    answer = await post(server.port, callback())
    assert answer.status == 503
    assert answer.content["error_code"] == 503


async def test_a_broker_that_hangs_is_waited_for_in_bounds(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve(budget=Budget(confirm_s=0.1))
    transport.gate.clear()
    assert (await post(server.port, callback())).status == 503
    assert transport.published == []


async def test_bodies_in_flight_are_bounded_together(serve: Serve, transport: RecordingTransport) -> None:
    body = callback()
    server = await serve(max_in_flight_bytes=2 * len(body) + 10, max_body_bytes=len(body))
    transport.gate.clear()
    waiting = [asyncio.create_task(post(server.port, body)) for _ in range(2)]
    await until(lambda: transport.waiting == 2)
    assert "too many callbacks at once" in server.ready().not_ready
    assert (await post(server.port, body)).status == 503
    transport.gate.set()
    assert [(await answer).status for answer in waiting] == [200, 200]
    assert server.ready().not_ready == ()
    assert (await post(server.port, body)).status == 200


async def test_callbacks_in_flight_are_bounded_by_their_number(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve(max_in_flight=2)
    transport.gate.clear()
    waiting = [asyncio.create_task(post(server.port, callback())) for _ in range(2)]
    await until(lambda: transport.waiting == 2)
    assert server.ready().not_ready == ("too many callbacks at once",)
    assert (await post(server.port, callback())).status == 503
    assert (await post(server.port, callback(), path="/wrong")).status == 404
    transport.gate.set()
    assert [(await answer).status for answer in waiting] == [200, 200]
    assert server.ready().not_ready == ()
    assert (await post(server.port, callback())).status == 200


async def test_what_is_in_flight_shows_in_the_metrics(serve: Serve, transport: RecordingTransport) -> None:
    server = await serve()
    transport.gate.clear()
    body = callback()
    waiting = asyncio.create_task(post(server.port, body))
    await until(lambda: b"tiw_callbacks_in_flight 1.0\n" in render_metrics())
    assert b"tiw_bytes_in_flight %d.0\n" % len(body) in render_metrics()
    transport.gate.set()
    await waiting
    await server.drain()
    assert b"tiw_callbacks_in_flight 0.0\n" in render_metrics()
    assert b"tiw_bytes_in_flight 0.0\n" in render_metrics()


async def test_every_callback_is_counted_at_the_latest_at_the_end(serve: Serve) -> None:
    def count(name: bytes) -> float:
        return float(render_metrics().partition(b"\n" + name + b" ")[2].partition(b"\n")[0])

    accepted = b'tiw_callbacks_accepted_total{routing_key="OnlineRecordStarted"}'
    names = (accepted, b"tiw_answer_seconds_count", b"tiw_publish_seconds_count")
    before = [count(name) for name in names]
    server = await serve()
    for _ in range(3):
        await post(server.port, callback())
    await post(server.port, b"{}")
    await server.drain()
    assert [count(name) - was for name, was in zip(names, before, strict=True)] == [3, 4, 3]


async def test_a_flood_of_large_bodies_is_answered_in_time(
    serve: Serve, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.callbacks, "LARGE_BODY_BYTES", 10)
    server = await serve()
    assert (await post(server.port, callback())).status == 200
    assert (await post(server.port, callback(New=1))).status == 200
    hurried = await serve(budget=Budget(look_s=0))
    assert (await post(hurried.port, callback(New=1))).status == 503
    assert (await post(hurried.port, callback())).status == 200  # it is plain, and needs no thread
    assert (await post(hurried.port, b"{}")).status == 401
    assert len(transport.published) == 3


async def test_room_is_given_back_whatever_happens(serve: Serve) -> None:
    body = callback()
    server = await serve(max_in_flight_bytes=len(body), max_body_bytes=len(body))
    for wrong in (body[:-1], b"{}", body + b" ", body.replace(b'"Sign"', b'"sign"')):
        assert (await post(server.port, wrong)).status in {400, 401, 413}
        assert (await post(server.port, body)).status == 200


async def test_no_sign_gets_past_the_door(
    serve: Serve, transport: RecordingTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    right, wrong, late = callback(), callback(key="another key"), callback(expire_time=1588040109)
    broken = callback(SdkAppId="\x1b[31m").replace(b"1253", b"[[1253 1253]]")
    oversize = callback(Padding="x" * 5000)
    bodies = (right, wrong, late, oversize, right.replace(b'"t1"', b'"\xff"'), right[:-1], broken)
    with structlog.testing.capture_logs() as logs:
        server = await serve(max_body_bytes=4000)
        for body in bodies:
            await post(server.port, body)
            async with connected(server.port) as connection:
                await connection.send(b"POST /" + sign_of(right).encode() + b" nonsense\r\n\r\n" + request(body))
        await server.drain()
    shown = repr(logs) + caplog.text + render_metrics().decode() + repr(transport.published)
    assert "callback_refused" in shown
    for body in (right, wrong, late, oversize):
        assert sign_of(body) not in shown


async def test_an_event_with_odd_members_is_that_event_and_the_members_are_named_not_shown(
    serve: Serve, transport: RecordingTransport
) -> None:
    videos: list[object] = [{"VideoId": "a"}, "secret", {"VideoSize": "huge"}, *["x"] * 50]
    body = callback(EventType="OnlineRecordFinished", EventData={"TaskId": "t1", "VideoInfos": videos})
    with structlog.testing.capture_logs() as logs:
        server = await serve()
        for _ in range(3):
            assert (await post(server.port, body)).status == 200
        await server.drain()
    assert {message.routing_key for message in transport.published} == {"OnlineRecordFinished"}
    assert json.loads(transport.published[0].body)["EventData"]["VideoInfos"] == videos
    (told, *_) = [entry for entry in logs if entry["event"] == "callback_partly_understood"]
    assert told["event_id"] == transport.published[0].event_id
    assert (told["odd_members"][:2], told["odd"]) == (("VideoInfos[1]", "VideoInfos[2].VideoSize"), 52)
    assert len(told["odd_members"]) == 10
    assert "secret" not in repr(logs)
    assert b"tiw_callbacks_partly_understood_total" in render_metrics()


async def test_senders_cannot_make_new_time_series(serve: Serve) -> None:
    server = await serve()
    await post(server.port, callback())

    def names() -> set[bytes]:
        return {line.rpartition(b" ")[0] for line in render_metrics().splitlines() if not line.startswith(b"#")}

    before = names()
    async with connected(server.port) as connection:
        for number in range(500):
            await connection.send(request(callback(EventType=f"Type{number}", SdkAppId=SDK_APP_ID - number)))
            assert (await connection.answer()).status == (401 if number else 200)
            await connection.send(request(callback(EventType=f"Type{number}")))
            assert (await connection.answer()).status == 200
    assert names() == before


async def test_refusals_are_logged_once_a_second_and_counted(serve: Serve) -> None:
    with structlog.testing.capture_logs() as logs:
        server = await serve()
        for _ in range(20):
            await post(server.port, b"{}")
            await post(server.port, callback(key="another key"))
        await server.drain()
    refused = [entry for entry in logs if entry["event"] == "callback_refused"]
    assert len(refused) <= 8
    for reason in ("unknown_app", "wrong_sign"):
        assert sum(entry["count"] for entry in refused if entry["reason"] == reason) == 20
    assert {entry.get("sdk_app_id") for entry in refused if entry["reason"] == "wrong_sign"} <= {SDK_APP_ID, None}


PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\xff", b"\\ud800",
     b'"Sign"', b'"a":1,', b"null", b"1e9", b"\0", b" "]
) | st.binary(max_size=4)  # fmt: skip


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=400), PIECES, st.booleans()), max_size=6), st.binary())
@examples(quick=40, thorough=1500)
def test_any_bytes_get_a_documented_answer(edits: list[tuple[int, bytes, bool]], anything: bytes) -> None:
    mangled = callback()
    for position, piece, replace in edits:
        at = position % (len(mangled) + 1)
        mangled = mangled[:at] + piece + mangled[at + (len(piece) if replace else 0) :]

    async def send() -> None:
        transport = RecordingTransport()
        with structlog.testing.capture_logs() as logs:
            async with IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)) as server:
                statuses = [(await post(server.port, body)).status for body in (mangled, anything)]
        assert set(statuses) <= DOCUMENTED
        assert statuses.count(200) == len(transport.published)
        assert not [entry for entry in logs if entry["log_level"] == "error"]

    asyncio.run(send())
