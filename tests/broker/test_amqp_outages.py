"""What a transport makes of brokers and networks that hang: nothing takes longer than it may, and all goes on after."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
import structlog

from broker import Message, NotPublishedError
from broker.amqp import connection as amqp_connection
from broker.amqp import connection as amqp_pulse
from broker.amqp import declaring as amqp_topology
from broker.amqp import transport as amqp
from broker.amqp import wire as amqp_wire
from broker.amqp.connection import CONNECTION_ERRORS, Connection, Patience, watch
from broker.amqp.declaring import Declarer
from broker.amqp.endpoints import Brokers, parse_endpoints
from broker.amqp.publishing import Route
from broker.amqp.transport import AmqpTransport
from broker.topology import Topology
from tests.broker.consumers import ARCHIVE, CONSUMERS, FINISHED, LADDER
from tests.broker.inbox import AckingInbox, eventually
from tests.broker.tcp_proxy import TcpProxy
from tests.servers.rabbitmq import RabbitMQServer

_MESSAGE = Message(body=b"{}", event_id="e" * 32, routing_key=FINISHED, received_at_us=1)
_CONFIRM_S = 0.4

#: What a busy machine may add to a deadline.
_SLACK_S = 1.5


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what never comes."""
    monkeypatch.setattr(amqp_connection, "SILENCE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(amqp_wire, "ACCEPT_TIMEOUT_S", 0.5)
    for name in ("PUBLISHING", "CONSUMING"):
        monkeypatch.setattr(amqp, name, Patience(ask_after_s=0.25, answer_within_s=0.75))


@pytest.fixture
async def proxy(rabbitmq: RabbitMQServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(rabbitmq.host, rabbitmq.port) as opened:
        yield opened


def _transport(*urls: str) -> AmqpTransport:
    return AmqpTransport(urls, consumers=CONSUMERS, retry_delays_s=LADDER, confirm_timeout_s=_CONFIRM_S)


async def _ready(transport: AmqpTransport) -> None:
    async with asyncio.timeout(30):
        await transport.wait_ready()


async def _holds(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def _publishes(transport: AmqpTransport) -> bool:
    """Publish, and say whether it was kept; either way in time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        await transport.publish(_MESSAGE)
    except NotPublishedError:
        return False
    else:
        return True
    finally:
        assert loop.time() - began_s < _CONFIRM_S + _SLACK_S


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        yield listening


@contextlib.contextmanager
def _drops_what_comes() -> Iterator[int]:
    """Give a port whose queue of connections is full: the kernel passes over further ones without a word."""
    with _listener() as listening, contextlib.ExitStack() as stack:
        address = listening.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(address)
        yield address[1]


@contextlib.contextmanager
def _accepts_and_is_silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield listening.getsockname()[1]


_HANGS = {
    "amqp://u:p@127.0.0.1:{}/": _accepts_and_is_silent,
    "amqps://u:p@127.0.0.1:{}/": _accepts_and_is_silent,
    "amqp://u:p@127.0.0.1:{}/v": _drops_what_comes,
}


@pytest.mark.parametrize("address", _HANGS)
async def test_a_broker_that_hangs_costs_a_moment_and_the_next_is_used(address: str, url: str) -> None:
    with _HANGS[address]() as port:
        async with _transport(address.format(port), url) as transport:
            assert not await _publishes(transport)
            await _ready(transport)
            assert await _publishes(transport)
            assert (await transport.inspect(["archive"]))[0].ready == 1


async def test_a_name_that_is_never_resolved_ends_a_publish_in_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "broker.example":
            goes_on.wait(60)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with _transport(url.replace("127.0.0.1", "broker.example")) as transport:
            assert not await _publishes(transport)
            goes_on.set()
            await _ready(transport)
            assert await _publishes(transport)
    finally:
        goes_on.set()


async def test_a_black_hole_is_noticed_and_what_comes_after_it_too(proxy: TcpProxy, url: str) -> None:
    inbox = AckingInbox()
    # The broker, too, has to notice: it delivers to the connection that it believes in.
    async with (
        _transport(proxy.through(url) + "?heartbeat=2") as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=5) as subscription,
    ):
        await _ready(transport)
        assert await _publishes(transport)
        await inbox.wait(1)
        proxy.black_hole()
        outcomes = await asyncio.gather(*(_publishes(transport) for _ in range(20)))
        assert not any(outcomes)
        assert not transport.is_ready
        await _holds(lambda: not subscription.is_consuming)
        assert not await _publishes(transport)
        proxy.swallows = False
        await _ready(transport)
        assert await _publishes(transport)
        await inbox.wait(2)
        assert subscription.is_consuming


async def test_a_black_hole_is_noticed_where_nothing_is_published(proxy: TcpProxy, url: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with _transport(proxy.through(url)) as transport:
            await _ready(transport)
            proxy.black_hole()
            await _holds(lambda: not transport.is_ready)
            await _holds(lambda: any(entry["event"] == "broker_lost" for entry in logs))
    assert "silent" in next(entry["error"] for entry in logs if entry["event"] == "broker_lost")


async def test_a_declaration_that_hangs_ends_a_publish_in_time(proxy: TcpProxy, url: str) -> None:
    async with _transport(proxy.through(url)) as transport:
        await _ready(transport)
        declare = transport._declarer.declare

        async def hang(connection: Connection, topology: Topology) -> None:
            proxy.black_hole()
            await declare(connection, topology)

        cast("Any", transport._declarer).declare = hang
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(NotPublishedError):
            await transport._publisher.publish(_MESSAGE, Route("tiw.nowhere", "k", Topology(exchanges=(), queues=())))
        assert loop.time() - began_s < _CONFIRM_S + _SLACK_S


async def test_whoever_works_is_stayed_with(rabbitmq: RabbitMQServer, amqp_vhost: str, url: str) -> None:
    async with (
        TcpProxy(rabbitmq.host, rabbitmq.port) as first,
        TcpProxy(rabbitmq.host, rabbitmq.port) as second,
        _transport(first.through(url), second.through(url)) as transport,
    ):
        await _ready(transport)
        assert (first.accepted, second.accepted) == (1, 0)

        async def is_closed() -> bool:
            return await asyncio.to_thread(rabbitmq.close_connections, amqp_vhost) > 0

        # As a broker does that is about to stop: it closes what there is, with code 320, and accepts no more.
        first.refuse()
        await eventually(is_closed)
        await _holds(lambda: not transport.is_ready)
        await _ready(transport)
        assert (first.accepted, second.accepted) == (1, 1)
        await transport.inspect(["archive"])
        assert (first.accepted, second.accepted) == (1, 2)


def test_the_one_that_worked_last_is_tried_first() -> None:
    endpoints = parse_endpoints(["amqp://a:b@127.0.0.1:1", "amqp://a:b@127.0.0.1:2", "amqp://a:b@127.0.0.1:3"])
    brokers = Brokers(endpoints)
    assert brokers.in_turn() == endpoints
    brokers.note_working(endpoints[1])
    assert brokers.in_turn() == (endpoints[1], endpoints[2], endpoints[0])


async def test_a_quiet_connection_whose_broker_answers_is_left_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (endpoint,) = parse_endpoints([url])
    connection = await Connection.open(endpoint, name="test")
    heard: list[tuple[float, bool]] = []
    hears = connection.wire.hears

    async def noting(*, within_s: float) -> bool:
        heard.append((within_s, await hears(within_s=within_s)))
        return heard[-1][1]

    monkeypatch.setattr(connection.wire, "hears", noting)
    watching = asyncio.create_task(watch(connection, Patience(ask_after_s=0.25, answer_within_s=10)))
    try:
        await _holds(lambda: heard.count((10, True)) == 4 or watching.done())
        assert not watching.done()
        assert connection.is_open
    finally:
        watching.cancel()
        await connection.close()


async def test_a_host_is_reached_at_whichever_of_its_addresses_accepts(
    rabbitmq: RabbitMQServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", rabbitmq.host)]
    look_up = socket.getaddrinfo

    def look_up_ours(host: Any, *arguments: Any, **options: Any) -> Any:
        return found if host == "broker.example" else look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_ours)
    async with _transport(url.replace(rabbitmq.host, "broker.example")) as transport:
        await _ready(transport)


async def test_a_declaration_that_hangs_elsewhere_is_not_waited_for(
    proxy: TcpProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_topology, "TURN_TIMEOUT_S", 0.1)
    declarer = Declarer()
    nothing = Topology(exchanges=(), queues=())
    (hanging,), (working,) = parse_endpoints([proxy.through(url)]), parse_endpoints([url])
    first = await Connection.open(hanging, name="test")
    second = await Connection.open(working, name="test")
    try:
        proxy.black_hole()
        stuck = asyncio.create_task(declarer.declare(first, nothing))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await declarer.declare(second, nothing)
        assert not stuck.done()
    finally:
        first.abort()
        await asyncio.wait((stuck,))
        assert isinstance(stuck.exception(), CONNECTION_ERRORS)
        await first.close()
        await second.close()


class _Wire:
    """A wire on which nothing is heard, `silences` times; then whoever listens is stopped."""

    def __init__(self, *, is_blocked: bool) -> None:
        self.is_blocked = is_blocked
        self.waits_s: list[float] = []
        self.aborted = ""

    @property
    def wire(self) -> "_Wire":
        return self

    async def hears(self, *, within_s: float) -> bool:
        self.waits_s.append(within_s)
        return False

    def abort(self, reason: str) -> None:
        self.aborted = reason


async def test_a_blocked_broker_is_asked_nothing_and_given_up_only_when_heartbeats_fail() -> None:
    wire = _Wire(is_blocked=True)
    await watch(cast("Connection", wire), Patience(ask_after_s=1, answer_within_s=2))
    assert wire.waits_s == [1, amqp_pulse.BLOCKED_SILENCE_S]
    assert "silent" in wire.aborted


async def test_time_in_which_the_event_loop_stands_still_is_no_silence() -> None:
    wire = amqp_wire.Wire()
    hearing = asyncio.create_task(wire.hears(within_s=1))
    await asyncio.sleep(0.01)
    threading.Event().wait(1.5)
    await asyncio.sleep(0.3)
    assert not hearing.done()
    wire.has_heard = True
    assert await hearing


async def test_a_peer_that_takes_what_is_sent_is_alive() -> None:
    class Draining(asyncio.WriteTransport):
        left = 1000

        def get_write_buffer_size(self) -> int:
            self.left -= 100
            return self.left

    wire = amqp_wire.Wire()
    wire._transport = Draining()
    assert await wire.hears(within_s=30)
