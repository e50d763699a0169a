"""What `broker.amqp.wire` rests on, so that another version of aiormq that changes it fails here and not in use."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import aio_pika
import aiormq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from broker.amqp.connection import Connection
from broker.amqp.endpoints import parse_endpoints
from broker.amqp.wire import (
    BODY,
    FRAME_HEAD,
    FRAME_OVERHEAD,
    HEARTBEAT,
    METHOD,
    Wire,
    _Separator,
    content_frames,
    frame,
    publish_frame,
)
from tests.broker.inbox import eventually
from tests.servers.rabbitmq import RabbitMQServer

_BLOCKED = frame(METHOD, 0, b"\0\x0a\0\x3c\x03low")
_UNBLOCKED = frame(METHOD, 0, b"\0\x0a\0\x3d")


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Connection]:
    (endpoint,) = parse_endpoints([url])
    opened = await Connection.open(endpoint, name="test")
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def connection(rabbitmq: RabbitMQServer, amqp_vhost: str) -> AsyncIterator[Connection]:
    async with _opened(rabbitmq.url(amqp_vhost)) as opened:
        yield opened


@pytest.fixture
async def impatient(
    rabbitmq: RabbitMQServer, amqp_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connection]:
    # aiormq gives a connection up that is silent for (heartbeat + 1) * 3 s: shortened here to less than a second.
    monkeypatch.setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.4)
    async with _opened(rabbitmq.url(amqp_vhost) + "?heartbeat=1") as opened:
        yield opened


def test_the_versions_are_those_it_was_written_for() -> None:
    assert version("aiormq").startswith("7."), "read broker/amqp/wire.py before this line is changed"
    assert version("aio-pika").startswith("10."), "read broker/amqp/connection.py before this line is changed"


async def test_the_library_connects_through_the_wire_and_its_requests_are_answered(connection: Connection) -> None:
    taken: list[tuple[int, bytes]] = []

    def take_nothing(kind: int, payload: bytes) -> bool:
        taken.append((kind, payload))
        return False

    channel = await connection.amqp.channel(publisher_confirms=True)
    connection.wire.attach(channel.number, take_nothing)
    await channel.queue_declare("q", exclusive=True)
    assert [kind for kind, _ in taken] == [METHOD]
    connection.wire.detach(channel.number, take_nothing)
    await channel.close()


async def test_what_is_taken_never_reaches_the_library(connection: Connection) -> None:
    channel = await connection.amqp.channel(publisher_confirms=False)
    taken: list[int] = []
    whole = asyncio.Event()

    def take(kind: int, payload: bytes) -> bool:
        if kind == METHOD and payload[:4] != b"\0\x3c\0\x3c":
            return False
        taken.append(kind)
        if kind == BODY:
            whole.set()
        return True

    async def unused(message: aiormq.abc.DeliveredMessage) -> None:
        pytest.fail(f"the library got {message}")

    connection.wire.attach(channel.number, take)
    await channel.queue_declare("q", exclusive=True)
    await channel.basic_consume("q", unused, no_ack=True)
    await channel.basic_publish(b"body", routing_key="q")
    await asyncio.wait_for(whole.wait(), 10)
    assert len(taken) == 3


async def test_the_librarys_own_writes_are_whole_frames(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    writer = asyncio.StreamWriter.write

    def record(self: asyncio.StreamWriter, data: bytes) -> None:
        written.append(bytes(data))
        writer(self, data)

    monkeypatch.setattr(asyncio.StreamWriter, "write", record)
    channel = await connection.amqp.channel(publisher_confirms=True)
    await channel.queue_declare("q", exclusive=True)
    await channel.basic_publish(b"x" * 300_000, routing_key="q")
    await channel.close()
    assert written
    for data in written:
        at = 0
        while at < len(data):
            _, _, size = FRAME_HEAD.unpack_from(data, at)
            at += FRAME_OVERHEAD + size
        assert at == len(data)


async def test_a_connection_of_nothing_but_taken_frames_is_not_given_up(impatient: Connection) -> None:
    channel = await impatient.amqp.channel(publisher_confirms=True)
    impatient.wire.attach(channel.number, lambda _kind, _payload: True)
    publish = b"".join(
        [publish_frame(channel.number, "", "nobody"), *content_frames(channel.number, b"\0\0", b"", 4096)]
    )
    end_s = asyncio.get_running_loop().time() + 2.5
    while asyncio.get_running_loop().time() < end_s:
        impatient.wire.write(publish)
        await asyncio.sleep(0.05)
        assert impatient.is_open


async def test_a_silent_connection_is_given_up(impatient: Connection, rabbitmq: RabbitMQServer) -> None:
    rabbitmq.pause()
    try:
        await asyncio.wait_for(impatient.wait_closed(), 10)
    finally:
        rabbitmq.resume()


async def test_aio_pika_passes_the_wire_on_to_the_library() -> None:
    wire = Wire()
    pika = aio_pika.Connection(URL("amqp://u:p@127.0.0.1:1/"))
    pika.kwargs["transport_factory"] = wire
    with pytest.raises(aiormq.AMQPConnectionError):
        await pika.connect()
    await pika.close()


class _Reading:
    """A separator without a socket: `passed_on` is what the library would read."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=2**20)
        self.wire = Wire()
        self.separator = _Separator(self.reader, self.wire)

    @property
    def passed_on(self) -> bytes:
        return bytes(self.reader._buffer)  # type: ignore[attr-defined]  # there is no public look without taking


def _reading(check: Callable[[_Reading], None]) -> None:
    async def run() -> None:
        check(_Reading())

    asyncio.run(run())


def _frames(stream: bytes) -> list[bytes]:
    found = []
    while stream:
        _, _, size = FRAME_HEAD.unpack_from(stream)
        found.append(stream[: FRAME_OVERHEAD + size])
        stream = stream[FRAME_OVERHEAD + size :]
    return found


@given(
    frames=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.binary(max_size=30)), max_size=12),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_frames_arrive_whole_wherever_the_stream_is_cut(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    def check(reading: _Reading) -> None:
        taken: list[tuple[int, bytes]] = []

        def take(kind: int, payload: bytes) -> bool:
            taken.append((kind, payload))
            return True

        reading.wire.attach(2, take)
        stream = b"".join(frame(kind, channel, payload) for kind, channel, payload in frames)
        at = 0
        for cut in [*cuts, len(stream)]:
            reading.separator.data_received(stream[at : at + cut])
            at += cut
        assert taken == [(kind, payload) for kind, channel, payload in frames if channel == 2]
        others = [frame(kind, channel, payload) for kind, channel, payload in frames if channel != 2]
        assert [one for one in _frames(reading.passed_on) if one != HEARTBEAT] == others

    _reading(check)


def test_a_garbled_stream_is_the_librarys_to_complain_about() -> None:
    def check(reading: _Reading) -> None:
        reading.wire.attach(1, lambda _kind, _payload: True)
        broken = frame(METHOD, 1, b"abcd")[:-1] + b"\0"
        reading.separator.data_received(broken)
        reading.separator.data_received(frame(METHOD, 1, b"more"))
        assert reading.passed_on == broken + frame(METHOD, 1, b"more")

    _reading(check)


def test_what_is_no_frame_at_all_is_passed_on_at_the_end() -> None:
    def check(reading: _Reading) -> None:
        reading.separator.data_received(b"AMQP\0\0\x09\1")
        reading.separator.eof_received()
        assert reading.passed_on == b"AMQP\0\0\x09\1"

    _reading(check)


def test_it_knows_whether_the_broker_takes_anything() -> None:
    def check(reading: _Reading) -> None:
        told: list[bool] = []
        reading.wire.on_blocked = lambda: told.append(reading.wire.is_blocked)
        reading.separator.data_received(_BLOCKED + _UNBLOCKED + _BLOCKED)
        assert told == [True, False, True]
        assert reading.passed_on == _BLOCKED + _UNBLOCKED + _BLOCKED

    _reading(check)


def test_a_number_that_was_used_again_keeps_its_new_taker() -> None:
    wire = Wire()
    wire.attach(1, before := lambda _kind, _payload: False)
    wire.attach(1, lambda _kind, _payload: True)
    wire.detach(1, before)
    assert wire.offer(1, METHOD, b"")


async def test_nothing_is_written_to_a_connection_that_is_lost(connection: Connection) -> None:
    Wire().write(b"nowhere")
    lost = [connection.wire.is_lost]
    connection.abort()
    lost.append(connection.wire.is_lost)
    assert lost == [False, True]
    connection.wire.write(b"nowhere")

    async def is_closed() -> bool:
        return not connection.is_open

    await eventually(is_closed)


async def test_a_connection_that_the_broker_ends_is_known_to_be_lost(
    connection: Connection, rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    async def is_listed() -> bool:
        return await asyncio.to_thread(rabbitmq.close_connections, amqp_vhost) > 0

    async def is_lost() -> bool:
        return connection.wire.is_lost

    await eventually(is_listed)
    await eventually(is_lost)
