"""Slow clients tell truly whether, and when, they were sent away."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chaos.faults.slow_clients import Habit, Order, be_slow


@contextmanager
def server(*, closes_after_s: float | None) -> Iterator[tuple[str, int]]:
    """Accept connections and read nothing; close each after a while, or only at the end."""
    connections: list[socket.socket] = []
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            if closes_after_s is not None:
                ended.wait(closes_after_s)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in connections:
            connection.close()


def test_clients_that_nobody_sends_away_stay() -> None:
    with server(closes_after_s=None) as (host, port):
        report = be_slow(Order(host=host, port=port, clients=2 * len(Habit), stay_s=0.3))
    assert report.connected == report.still_connected == dict.fromkeys(Habit, 2)
    assert report.refused == 0


def test_clients_that_are_sent_away_tell_how_long_they_stayed() -> None:
    with server(closes_after_s=0.05) as (host, port):
        report = be_slow(Order(host=host, port=port, clients=len(Habit), stay_s=1.0))
    assert report.connected == dict.fromkeys(Habit, 1)
    assert report.still_connected == dict.fromkeys(Habit, 0)
    assert all(0 < stay_s < 0.9 for stay_s in report.longest_stay_s.values())


def test_clients_that_get_no_connection_are_counted() -> None:
    with server(closes_after_s=None) as (host, port):
        pass
    assert be_slow(Order(host=host, port=port, clients=3, stay_s=0.0)).refused == 3
