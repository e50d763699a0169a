"""Each fault of the proxy does what its name says, to old and to new connections, and ends when it is to end."""

import socket
import time
from collections.abc import Iterator
from random import Random

import pytest

from chaos.faults.proxy import AnswerTimes, Direction, Kind, Proxy, Toxic, draw
from tests.chaos.echo_server import EchoServer

#: Long enough to be sure that nothing comes.
SILENCE_S = 0.15


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with EchoServer() as server, Proxy(server.host, server.port, seed=1) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connect(proxy) as connection:
        assert echoed(connection, b"before") == b"before"
        yield connection


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return received(connection, len(data))


def received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_without_a_fault_everything_passes_and_a_close_too(proxy: Proxy, client: socket.socket) -> None:
    data = bytes(range(256)) * 1024
    client.setblocking(True)
    assert echoed(client, data) == data
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    assert proxy.hits == 0


@pytest.mark.parametrize("kind", Kind)
def test_after_a_fault_has_ended_new_connections_work(proxy: Proxy, kind: Kind) -> None:
    proxy.inject(draw(kind, Random(kind)))
    proxy.heal()
    with connect(proxy) as connection:
        assert echoed(connection, b"after") == b"after"


@pytest.mark.parametrize("kind", Kind)
def test_the_same_seed_draws_the_same_fault(kind: Kind) -> None:
    assert draw(kind, Random(7)) == draw(kind, Random(7))


def test_latency_delays_but_keeps_the_order(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.LATENCY, delay_s=0.1, jitter_s=0.05))
    start_s = time.monotonic()
    for number in range(10):
        client.sendall(bytes([number]))
        time.sleep(0.005)
    assert received(client, 10) == bytes(range(10))
    assert time.monotonic() - start_s >= 0.1
    assert proxy.hits > 0


def test_a_black_hole_swallows_nothing_and_delivers_when_it_ends(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.BLACK_HOLE))
    with connect(proxy) as late:
        for connection in (client, late):
            connection.sendall(b"held")
            assert is_silent(connection)
        proxy.heal()
        assert received(client, 4) == received(late, 4) == b"held"


def test_a_reset_ends_old_and_new_connections(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.RESET))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionResetError), connect(proxy) as late:
        late.recv(1)


def test_refused_connections_are_refused_and_the_port_stays(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.REFUSE))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    port = proxy.port
    proxy.heal()
    assert proxy.port == port
    with connect(proxy) as late:
        assert echoed(late, b"back") == b"back"


@pytest.mark.parametrize("silent", Direction)
def test_half_open_connections_are_silent_in_one_direction(
    proxy: Proxy, client: socket.socket, silent: Direction
) -> None:
    proxy.inject(Toxic(kind=Kind.HALF_OPEN, silent=silent))
    client.sendall(b"held")
    assert is_silent(client)
    proxy.heal()
    assert received(client, 4) == b"held"


def test_a_slow_close_is_told_late(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.SLOW_CLOSE, delay_s=0.3))
    assert is_silent(client)
    assert client.recv(1) == b""


def test_a_cut_ends_a_connection_after_so_many_bytes(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.CUT, cut_after_bytes=7, cut_new_after_bytes=3))
    client.sendall(b"0123456789")
    assert received_until_reset(client) == b"0123456"
    with connect(proxy) as late:
        late.sendall(b"0123456789")
        assert received_until_reset(late) == b"012"


def received_until_reset(connection: socket.socket) -> bytes:
    data = b""
    try:
        while more := connection.recv(100):
            data += more
    except ConnectionResetError:
        return data
    pytest.fail("it was closed in order")


def test_one_byte_at_a_time_arrives_whole(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.ONE_BYTE))
    client.sendall(b"abcdefgh")
    assert received(client, 8) == b"abcdefgh"
    assert proxy.hits >= 16, "each byte travels alone, there and back"


def test_a_narrow_band_takes_its_time(proxy: Proxy, client: socket.socket) -> None:
    proxy.inject(Toxic(kind=Kind.BANDWIDTH, bytes_per_s=10_000))
    start_s = time.monotonic()
    assert echoed(client, b"x" * 2_000) == b"x" * 2_000
    assert time.monotonic() - start_s >= 0.15


def test_the_answer_times_are_those_of_the_server_and_not_of_the_network() -> None:
    times = AnswerTimes()
    request = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"
    with EchoServer() as server, Proxy(server.host, server.port, observe=times.observe) as proxy:
        proxy.inject(Toxic(kind=Kind.LATENCY, delay_s=0.4))
        with connect(proxy) as connection:
            assert echoed(connection, request) == request
    assert 0 < times.longest_s < 0.4


def test_the_proxy_leaves_no_connection_behind(proxy: Proxy) -> None:
    connections = [connect(proxy) for _ in range(20)]
    for connection in connections:
        assert echoed(connection, b"x") == b"x"
        connection.close()
    deadline_s = time.monotonic() + 5
    while proxy.open_connections:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
