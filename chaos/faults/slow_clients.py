"""Thousands of clients that take their time, from one process: `python -m chaos.faults.slow_clients ORDER`.

ORDER is a file of JSON, see `Order`. When its time is up, the process prints a `Report` as JSON.
"""

import contextlib
import itertools
import resource
import socket
import sys
import time
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct


class Habit(StrEnum):
    """What a client does after it has connected. None of them ever reads."""

    #: Nothing.
    SILENT = "silent"
    #: Sends its headers one byte after another.
    DRIPS_HEADERS = "drips-headers"
    #: Sends its body one byte after another.
    DRIPS_BODY = "drips-body"
    #: Sends requests one after another, and takes none of the answers.
    UNREAD = "unread"
    #: Sends many requests at once, and takes none of the answers.
    PIPELINES = "pipelines"
    #: Says in the middle of its headers that it will say no more.
    HALF_CLOSED = "half-closed"


class Order(Struct, frozen=True, kw_only=True):
    """How many clients, equally many of each habit, come to `host`:`port`, and for how long they stay."""

    host: str
    port: int
    clients: int
    stay_s: float


class Report(Struct, frozen=True, kw_only=True):
    """How they fared: by habit, how many connected, how many are connected still, and the longest stay of the others.

    `refused` did not get a connection, of any habit.
    """

    connected: dict[Habit, int]
    still_connected: dict[Habit, int]
    longest_stay_s: dict[Habit, float]
    refused: int


#: States in which the other side has not closed: ESTABLISHED, FIN_WAIT1, FIN_WAIT2. From
#: https://github.com/torvalds/linux/blob/v6.1/include/net/tcp_states.h
_CONNECTED_STATES = frozenset({1, 4, 5})

_CONNECT_WITHIN_S = 5.0
_TICK_S = 0.1
_DRIP_EVERY_S = 0.5

#: Enough for every client, and for the process itself.
_OTHER_FILES = 100

_HEADERS = b"POST /callbacks/tiw HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_REQUEST = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"

_OPENING = {
    Habit.SILENT: b"",
    Habit.DRIPS_HEADERS: _HEADERS,
    Habit.DRIPS_BODY: _HEADERS + b"Content-Length: 100000\r\n\r\n",
    Habit.UNREAD: _REQUEST,
    Habit.PIPELINES: _REQUEST * 30,
    Habit.HALF_CLOSED: _HEADERS,
}
_DRIP = {Habit.DRIPS_HEADERS: b"X-Slow: yes\r\n", Habit.DRIPS_BODY: b" "}


class _Client:
    def __init__(self, order: Order, habit: Habit) -> None:
        self.habit = habit
        self._socket = socket.create_connection((order.host, order.port), timeout=_CONNECT_WITHIN_S)
        self._socket.setblocking(False)
        self._came_s = time.monotonic()
        self._drip_at_s = self._came_s + _DRIP_EVERY_S
        self._drip = itertools.cycle(_DRIP.get(habit, b""))
        self.stay_s: float | None = None
        self._say(_OPENING[habit])
        if habit is Habit.HALF_CLOSED:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def tick(self) -> None:
        """Notice whether the other side has closed; if not, say the next word when it is due."""
        if self.stay_s is not None:
            return
        now_s = time.monotonic()
        if self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _CONNECTED_STATES:
            self.stay_s = now_s - self._came_s
        elif now_s >= self._drip_at_s:
            self._drip_at_s = now_s + _DRIP_EVERY_S
            self._say(bytes(itertools.islice(self._drip, 1)))

    def leave(self) -> None:
        self._socket.close()

    def _say(self, words: bytes) -> None:
        # Whether it was closed is seen in its state; a full buffer is what some of them are after.
        with contextlib.suppress(OSError):
            self._socket.sendall(words)


def be_slow(order: Order) -> Report:
    """Connect them all, let them stay, and tell how they fared."""
    refused = 0
    clients: list[_Client] = []
    for _, habit in zip(range(order.clients), itertools.cycle(Habit), strict=False):
        try:
            clients.append(_Client(order, habit))
        except OSError:
            refused += 1
    leave_at_s = time.monotonic() + order.stay_s
    while time.monotonic() < leave_at_s:
        for client in clients:
            client.tick()
        time.sleep(_TICK_S)
    for client in clients:
        client.leave()
    return Report(
        connected={habit: len(_of(clients, habit)) for habit in Habit},
        still_connected={habit: sum(client.stay_s is None for client in _of(clients, habit)) for habit in Habit},
        longest_stay_s={habit: max((one.stay_s or 0.0 for one in _of(clients, habit)), default=0.0) for habit in Habit},
        refused=refused,
    )


def _of(clients: list[_Client], habit: Habit) -> list[_Client]:
    return [client for client in clients if client.habit is habit]


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


if __name__ == "__main__":
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    _allow_files(given.clients + _OTHER_FILES)
    sys.stdout.buffer.write(msgspec.json.encode(be_slow(given)) + b"\n")
