"""Plain requests: what they cost, and every bound and promise that holds for them as for others."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import structlog
import uvloop
from aiohttp import web

import ingest.connections
import ingest.durability
from broker import Message, NotPublishedError, OnPublished
from chaos.fuzzing.both_ways import BothWays, Way
from ingest import IngestConfig, IngestServer, KeyRing, Refusal, Spool
from ingest.config import Budget
from ingest.connections import Connections
from ingest.durability import Deadlines
from ingest.plain import Head, Heads
from ingest.request import Answers
from ingest.spool import waiting_callbacks
from tests.ingest.callback_bodies import KEYS, callback
from tests.ingest.conftest import Serve
from tests.ingest.controlled_transport import ControlledTransport
from tests.ingest.raw_http import Connection, connected, exchange, plain_head, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until


def connections_of(server: IngestServer) -> Connections:
    assert server._connections is not None
    return server._connections


def has(begun: Sequence[object], count: int) -> bool:
    return len(begun) == count


async def test_a_plain_request_takes_no_task_and_is_not_handed_over(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[OnPublished] = []

    def begin_publish(_: object, message: Message, on_done: OnPublished) -> bool:
        del message
        begun.append(on_done)
        return True

    monkeypatch.setattr(RecordingTransport, "begin_publish", begin_publish)
    server = await serve()
    connections = connections_of(server)
    tasks = asyncio.all_tasks()
    async with connected(server.port) as connection:
        for number in range(3):
            await connection.send(request(callback()))
            await until(partial(has, begun, number + 1))
            assert asyncio.all_tasks() == tasks
            begun[-1](None)
            assert (await connection.answer()).status == 200
        assert not connections.connections  # those of aiohttp's
        await connection.send(b"P")
        await until(lambda: len(connections.connections) == 1)
        assert connections.count == 1


@pytest.mark.parametrize("refusal", [None, *Refusal], ids=str)
@pytest.mark.parametrize("closing", [False, True])
async def test_an_answer_is_rendered_as_aiohttp_writes_it(refusal: Refusal | None, closing: bool) -> None:
    answers = Answers()
    answers.closing = closing

    async def answer(received: web.BaseRequest) -> web.StreamResponse:
        return answers.kept(received) if refusal is None else answers.refused(refusal)

    loop = asyncio.get_running_loop()
    listener = await loop.create_server(web.Server(answer), "127.0.0.1", 0)
    async with listener, connected(listener.sockets[0].getsockname()[1]) as connection:
        await connection.send(b"PUT / HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(10):
            head = await connection.reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            written = head + await connection.reader.readexactly(size)
        rendered, closes = answers.rendered(refusal)
        assert without_date(rendered) == without_date(written)
        if closes:
            assert await connection.is_closed_by_the_server()


def without_date(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith((b"Date: ", b"Allow: "))]


# What is remembered of heads ----------------------------------------------------------------------------------------


async def test_a_head_means_the_same_however_often_it_comes() -> None:
    heads = Heads(path="/x")
    plain = plain_head(b"Host: h", b"Content-Length: 7", b"traceparent: t", path=b"/x")
    closing = plain_head(b"Host: h", b"Content-Length: 7", b"Connection: close", path=b"/x")
    for _ in range(3):
        assert heads.judge(plain) == Head(size_bytes=7, trace="t")
        assert heads.judge(closing) is None
        assert heads.judge(plain_head(b"Host: h", b"Content-Length: 7")) is None
        assert heads.judge(b"\0\r\n\r\n") is None
        assert heads.judge(b"POST /x HTTP/1.1\r\n") is None


async def test_what_is_remembered_of_heads_is_bounded() -> None:
    heads = Heads(path="/x")
    for number in range(3000):
        assert heads.judge(plain_head(b"Host: h", b"Content-Length: %d" % number, path=b"/x")) is not None
        assert heads.judge(plain_head(b"Host: h", b"X: %d" % number + 1000 * b"x", path=b"/x")) is None
    assert len(heads._known) <= 512
    assert max(map(len, heads._known)) <= 1024


# Durable before 200 -------------------------------------------------------------------------------------------------


class HangingTransport(RecordingTransport):
    """Begins each publish, and ends it when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[Message, OnPublished]] = []

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        self.begun.append((message, on_done))
        return True


@pytest.fixture
async def hanging(tmp_path: Path) -> AsyncIterator[tuple[IngestServer, HangingTransport]]:
    transport = HangingTransport()
    async with (
        Spool(tmp_path / "spool", RecordingTransport()) as spool,
        IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS), spool=spool) as server,
    ):
        yield server, transport


def spooled(folder: Path) -> list[bytes]:
    return [one.record.message.body for one in waiting_callbacks(folder / "spool")]


async def test_a_publish_that_fails_after_it_was_begun_goes_to_the_spool_and_the_breaker_is_told(
    hanging: tuple[IngestServer, HangingTransport], tmp_path: Path
) -> None:
    server, transport = hanging
    async with connected(server.port) as connection:
        for number in range(1, 4):
            await connection.send(request(callback(Timestamp=number)))
            await until(partial(has, transport.begun, number))
            transport.begun[-1][1](NotPublishedError("refused"))
            assert (await connection.answer()).status == 200
            assert server._durability.is_failing == (number == ingest.durability.FAILURES_TO_OPEN)
        # The breaker is open: nothing more is begun.
        await connection.send(request(callback(Timestamp=4)))
        assert (await connection.answer()).status == 200
    assert len(transport.begun) == 3
    assert len(transport.published) == 1  # it tries the broker with one of them, with care
    assert len(spooled(tmp_path)) == 3


async def test_a_publish_that_is_late_goes_to_the_spool_and_what_the_transport_says_then_changes_nothing(
    hanging: tuple[IngestServer, HangingTransport], tmp_path: Path
) -> None:
    server, transport = hanging
    async with connected(server.port) as connection:
        await connection.send(request(callback(Timestamp=1)))
        await until(lambda: len(transport.begun) == 1)
        (wait,) = server._durability._publishing._waiting
        wait.late()
        assert (await connection.answer()).status == 200
        (body,) = spooled(tmp_path)
        assert b'"Timestamp":1' in body.replace(b" ", b"")
        await connection.send(request(callback(Timestamp=2)))
        await until(lambda: len(transport.begun) == 2)
        transport.begun[0][1](None)
        assert not await has_been_answered(connection)
        transport.begun[1][1](None)
        assert (await connection.answer()).status == 200
        assert not await has_been_answered(connection)
    assert len(spooled(tmp_path)) == 1
    assert server._durability._live == 0


async def has_been_answered(connection: Connection) -> bool:
    await asyncio.sleep(0.02)
    return bool(connection.reader._buffer)  # type: ignore[attr-defined]  # what has arrived and was not read


async def test_the_spool_gets_the_time_that_is_left(tmp_path: Path) -> None:
    transport = HangingTransport()
    config = IngestConfig(port=0, budget=Budget(confirm_s=0.1, total_s=0.0))
    async with (
        Spool(tmp_path / "spool", RecordingTransport()) as spool,
        IngestServer(config, transport, KeyRing(KEYS), spool=spool) as server,
    ):
        assert (await exchange(server.port, request(callback()))).status == 503


@pytest.mark.parametrize("raises", [False, True])
async def test_what_cannot_begin_at_once_is_published_with_care_and_the_connection_stays_plain(
    serve: Serve, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    def begin_publish(*_: object) -> bool:
        if raises:
            raise KeyError
        return False

    monkeypatch.setattr(RecordingTransport, "begin_publish", begin_publish)
    with structlog.testing.capture_logs() as logs:
        server = await serve()
        connections = connections_of(server)
        async with connected(server.port) as connection:
            for _ in range(2):
                await connection.send(request(callback()))
                assert (await connection.answer()).status == 200
            assert not connections.connections
    assert len(transport.published) == 2
    assert [entry["event"] for entry in logs].count("publishing_failed") == 2 * raises


async def test_one_that_is_late_and_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wait:
        def __init__(self, error: Exception | None) -> None:
            self.error = error
            self.is_late = False

        def late(self) -> None:
            self.is_late = True
            if self.error is not None:
                raise self.error

    monkeypatch.setattr(ingest.durability, "TICK_S", 0.01)
    deadlines = Deadlines(0.0)
    waits = [Wait(KeyError()), Wait(None)]
    ended = Wait(None)
    for wait in (*waits, ended):
        deadlines.begin(wait, now_s=0.0)
    deadlines.end(ended)
    with structlog.testing.capture_logs() as logs:
        await until(lambda: all(wait.is_late for wait in waits))
    assert not ended.is_late
    assert [entry["event"] for entry in logs] == ["deadline_failed"]


# Bounds -------------------------------------------------------------------------------------------------------------


async def test_what_comes_before_the_answer_waits_unread_and_is_served_in_its_turn() -> None:
    transport = ControlledTransport()
    async with (
        IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)) as server,
        AsyncExitStack() as stack,
    ):
        connection = await stack.enter_async_context(connected(server.port))
        await connection.send(request(callback(EventData={"TaskId": "first"})))
        await until(lambda: "first" in transport.confirms)
        connections = connections_of(server)
        (plain,) = connections._open
        for name in ("second", "third"):
            await connection.send(request(callback(EventData={"TaskId": name})))
        await until(lambda: plain.is_expecting)
        assert plain.waiting_since_s == float("inf")
        assert set(transport.confirms) == {"first"}
        for name in ("first", "second", "third"):
            await until(partial(transport.confirms.__contains__, name))
            transport.confirms[name].set_result(None)
            assert (await connection.answer()).status == 200


async def test_a_sender_that_is_gone_takes_what_it_sent_after_with_it(
    serve: Serve, transport: RecordingTransport
) -> None:
    server = await serve()
    transport.gate.clear()
    async with connected(server.port) as connection:
        await connection.send(request(callback(Timestamp=1)))
        await until(lambda: transport.waiting == 1)
        connections = connections_of(server)
        (plain,) = connections._open
        await connection.send(b"POST")
        await until(lambda: plain.is_expecting)
        plain.abort()
        await until(lambda: connections.count == 0)
    transport.gate.set()
    await until(lambda: server._callbacks.running == 0)
    assert len(transport.published) == 1
    assert server._callbacks.in_flight.taken == server._callbacks.in_flight.taken_bytes == 0


async def test_who_sends_one_by_one_and_reads_no_answer_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.connections, "UNREAD_TIMEOUT_S", 0.2)
    server = await serve()
    connections = connections_of(server)
    async with connected(server.port) as connection:
        await connection.send(request(callback()))
        await connection.answer()
        (plain,) = connections._open
        began_s = plain.waiting_since_s
        plain.transport.get_protocol().pause_writing()  # type: ignore[attr-defined]  # as the loop does
        assert plain.waiting_since_s == began_s
        assert await connection.is_closed_by_the_server()
    await until(lambda: connections.count == 0)


async def test_a_connection_that_is_handed_over_has_no_more_time_than_any_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.connections, "KEEPALIVE_TIMEOUT_S", 0.5)
    server = await serve()
    connections = connections_of(server)
    async with connected(server.port) as connection:
        await until(lambda: connections.count == 1)
        (plain,) = connections._open
        began_s = plain.waiting_since_s
        await asyncio.sleep(0.1)
        await connection.send(b"POST")
        await until(lambda: len(connections.connections) == 1)
        (taken,) = connections._open
        assert taken is not plain
        assert taken.waiting_since_s == pytest.approx(began_s, abs=1e-6)
        assert await connection.is_closed_by_the_server()


# The loop that ingest runs on ---------------------------------------------------------------------------------------


def test_on_uvloop_a_connection_changes_hands_in_the_middle() -> None:
    async def converse() -> list[int]:
        transport = RecordingTransport()
        async with (
            IngestServer(IngestConfig(port=0), transport, KeyRing(KEYS)) as server,
            connected(server.port) as connection,
        ):
            statuses = []
            for sent in ([request(callback())], [request(b"{}")], [request(callback()) * 3], [request(callback())]):
                await connection.send(sent[0])
                statuses += [(await connection.answer()).status for _ in range(sent[0].count(b"POST"))]
            half = request(callback())
            await connection.send(half[:30])
            await asyncio.sleep(0)
            await connection.send(half[30:])
            statuses.append((await connection.answer()).status)
            transport.gate.clear()
            async with connected(server.port) as pipelining:
                await pipelining.send(request(callback()))
                await until(lambda: transport.waiting == 1)
                await pipelining.send(request(b"{}") + request(callback()))
                transport.gate.set()
                statuses += [(await pipelining.answer()).status for _ in range(3)]
            return statuses

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(converse()) == [200, 401, 200, 200, 200, 200, 200, 200, 401, 200]


async def test_nothing_of_a_connection_stays_when_it_ends() -> None:
    way: Way = BothWays().plain
    await way.serve([plain_head(b"Host: h", b"Content-Length: 2") + b"{}"] * 3, turns=20)
    assert (way.connections.count, way.connections.connections) == (0, [])
