"""A TCP proxy that spoils what goes through it, on command. It runs in a thread of its own."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any, Protocol, Self, TypeVar

from msgspec import Struct


class Direction(StrEnum):
    """Which way bytes go through a proxy."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"


class Kind(StrEnum):
    """One way for a network to fail."""

    #: Everything arrives later, in order, by a delay that varies.
    LATENCY = "latency"
    #: Connections are accepted, and established ones stay; nothing arrives until the fault ends.
    BLACK_HOLE = "black-hole"
    #: Established connections are reset, and so is each new one.
    RESET = "reset"
    #: One direction is silent until the fault ends; the other works.
    HALF_OPEN = "half-open"
    #: The server's side is closed; the client learns of it, as of every close, only after a delay.
    SLOW_CLOSE = "slow-close"
    #: Every byte travels alone.
    ONE_BYTE = "one-byte"
    #: So many bytes in a second, and no more.
    BANDWIDTH = "bandwidth"
    #: A connection is reset after so many bytes of what the server says: in the middle of a confirm.
    CUT = "cut"
    #: Nobody listens; established connections are reset.
    REFUSE = "refuse"


class Toxic(Struct, frozen=True, kw_only=True):
    """A fault of a connection. Only the numbers that its kind needs are not zero.

    `cut_after_bytes` counts from the start of the fault; `cut_new_after_bytes` from the start of a connection that
    came later, so that a reader's hand-shake is cut as well.
    """

    kind: Kind
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: int = 0
    cut_after_bytes: int = 0
    cut_new_after_bytes: int = 0
    silent: Direction | None = None

    def holds(self, direction: Direction) -> bool:
        """Say whether nothing gets through this way while the fault lasts."""
        return self.kind is Kind.BLACK_HOLE or self.silent is direction


#: A confirm of AMQP is a frame of 21 bytes: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf (section 4.2.3).
LARGEST_CUT_BYTES = 63


def draw(kind: Kind, rng: Random) -> Toxic:
    """Return a fault of this kind with numbers from `rng`."""
    match kind:
        case Kind.LATENCY:
            delay_s = rng.uniform(0.05, 0.5)
            return Toxic(kind=kind, delay_s=delay_s, jitter_s=rng.uniform(0.0, delay_s))
        case Kind.HALF_OPEN:
            return Toxic(kind=kind, silent=rng.choice(list(Direction)))
        case Kind.SLOW_CLOSE:
            return Toxic(kind=kind, delay_s=rng.uniform(1.0, 4.0))
        case Kind.BANDWIDTH:
            return Toxic(kind=kind, bytes_per_s=rng.randrange(2_000, 40_000))
        case Kind.CUT:
            first, later = rng.randrange(LARGEST_CUT_BYTES), rng.randrange(4_096)
            return Toxic(kind=kind, cut_after_bytes=first, cut_new_after_bytes=later)
        case _:
            return Toxic(kind=kind)


_CHUNK_BYTES = 64 * 1024

#: Chunks of one direction that are on their way at once; beyond them the reader waits.
_IN_FLIGHT = 256

#: A byte that travels alone takes this long: 20 kB/s at most.
_ONE_BYTE_S = 0.000_05

#: Close at once, with a reset: https://man7.org/linux/man-pages/man7/socket.7.html (SO_LINGER).
_LINGER_NOT = struct.pack("ii", 1, 0)


class Observer(Protocol):
    """Stands beside the server of one connection, and sees what it gets and says, when it does."""

    def got(self, data: bytes) -> None:
        """Take note of bytes that have just reached the server."""

    def said(self, data: bytes) -> None:
        """Take note of bytes that have just come from the server."""


class _NoObserver:
    def got(self, data: bytes) -> None:
        """Look away."""

    def said(self, data: bytes) -> None:
        """Look away."""


NO_OBSERVER: Observer = _NoObserver()


class Conditions:
    """What a proxy's connections meet: the fault of the moment, and how often it changed anything."""

    def __init__(self, *, rng: Random) -> None:
        self.rng = rng
        self.toxic: Toxic | None = None
        self.hits = 0
        self._changed = asyncio.Event()

    @property
    def kind(self) -> Kind | None:
        """The kind of the fault; None if there is none."""
        return None if self.toxic is None else self.toxic.kind

    def change(self, toxic: Toxic | None) -> None:
        """Begin a fault, or end it, and wake who waits for that."""
        self.toxic = toxic
        self._changed.set()
        self._changed = asyncio.Event()

    async def passable(self, direction: Direction) -> None:
        """Wait while nothing gets through this way."""
        if self.toxic is not None and self.toxic.holds(direction):
            self.hits += 1
        while self.toxic is not None and self.toxic.holds(direction):
            await self._changed.wait()

    def delay_s(self) -> float:
        """Return by how much a chunk that comes now is late."""
        if self.toxic is None or self.toxic.kind is not Kind.LATENCY:
            return 0.0
        self.hits += 1
        return max(0.0, self.toxic.delay_s + self.rng.uniform(-1, 1) * self.toxic.jitter_s)


class Proxied:
    """A client, the server behind, and what goes between. `run` does it all and closes both sockets."""

    def __init__(
        self, client: socket.socket, upstream: tuple[str, int], conditions: Conditions, observer: Observer
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._conditions = conditions
        self._observer = observer
        self._server = socket.socket()
        self._until_cut_bytes = 0 if conditions.toxic is None else conditions.toxic.cut_new_after_bytes

    def struck_by(self, toxic: Toxic) -> None:
        """Feel the beginning of a fault, as a connection that was there before."""
        self._until_cut_bytes = toxic.cut_after_bytes
        if toxic.kind is Kind.SLOW_CLOSE:
            self._conditions.hits += 1
            # Both directions end for the server; the reader of its side sees it too, and tells the client late.
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)

    async def run(self) -> None:
        """Pass on both directions until both have ended, or one fails; a cancellation resets both sides."""
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._conditions.passable(Direction.TO_SERVER)
            await asyncio.get_running_loop().sock_connect(self._server, self._upstream)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(Direction.TO_SERVER, self._client, self._server))
                tasks.create_task(self._pass_on(Direction.TO_CLIENT, self._server, self._client))
        except* OSError:
            await self._wait_before_closing()
            reset(self._client)
            reset(self._server)
        except* asyncio.CancelledError:
            reset(self._client)
            reset(self._server)
        finally:
            self._client.close()
            self._server.close()

    async def _pass_on(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(source, chunks))
            tasks.create_task(self._write(direction, target, chunks))

    async def _read(self, source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        due_s = 0.0
        while True:
            data = await loop.sock_recv(source, _CHUNK_BYTES)
            if source is self._server:
                self._observer.said(data)
            due_s = max(due_s, time.monotonic() + self._conditions.delay_s())
            await chunks.put((due_s, data))
            if not data:
                return

    async def _write(
        self, direction: Direction, target: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        while True:
            due_s, data = await chunks.get()
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._conditions.passable(direction)
            if not data:
                await self._wait_before_closing()
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                return
            for piece in self._pieces(direction, data):
                await self._conditions.passable(direction)
                await self._slow_down(piece)
                await asyncio.get_running_loop().sock_sendall(target, piece)
                if direction is Direction.TO_SERVER:
                    self._observer.got(piece)
            if direction is Direction.TO_CLIENT and self._is_cut():
                self._conditions.hits += 1
                raise ConnectionResetError("cut")

    def _is_cut(self) -> bool:
        return self._conditions.kind is Kind.CUT and self._until_cut_bytes == 0

    def _pieces(self, direction: Direction, data: bytes) -> list[bytes]:
        """Return what is sent of `data`, in the pieces in which it is sent."""
        if direction is Direction.TO_CLIENT and self._conditions.kind is Kind.CUT:
            data = data[: self._until_cut_bytes]
            self._until_cut_bytes -= len(data)
        size = {Kind.ONE_BYTE: 1, Kind.BANDWIDTH: 512}.get(self._conditions.kind or Kind.LATENCY, len(data))
        return [data[start : start + size] for start in range(0, len(data), size)] if data else []

    async def _slow_down(self, piece: bytes) -> None:
        toxic = self._conditions.toxic
        if toxic is None:
            return
        if toxic.kind is Kind.ONE_BYTE:
            self._conditions.hits += 1
            await asyncio.sleep(_ONE_BYTE_S)
        elif toxic.kind is Kind.BANDWIDTH:
            self._conditions.hits += 1
            await asyncio.sleep(len(piece) / toxic.bytes_per_s)

    async def _wait_before_closing(self) -> None:
        toxic = self._conditions.toxic
        if toxic is not None and toxic.kind is Kind.SLOW_CLOSE:
            self._conditions.hits += 1
            await asyncio.sleep(toxic.delay_s)


def reset(end: socket.socket) -> None:
    """Close a socket with a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    end.close()


#: How long a command to the proxy's thread may take, and how long a port may be in use by somebody else.
DEADLINE_S = 10.0

_BACKLOG = 1024

T = TypeVar("T")


class Proxy:
    """Listens on a port of 127.0.0.1 and passes every connection on to `host`:`port`. A context manager.

    One fault at a time: `inject` lets it begin, for connections there are and those to come, and `heal` ends it.
    Jitter comes from `seed`. The port stays the same throughout; `observe` is asked for an observer per connection.
    """

    def __init__(
        self, host: str, port: int, *, seed: int = 0, observe: Callable[[], Observer] = lambda: NO_OBSERVER
    ) -> None:
        self._upstream = (host, port)
        self._conditions = Conditions(rng=Random(seed))
        self._observe = observe
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy of {host}:{port}")
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[Proxied, asyncio.Task[None]] = {}
        self.host = "127.0.0.1"
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._call(self._listen())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def hits(self) -> int:
        """How often the faults so far changed anything: chunks held back or delayed, connections ended or refused."""
        return self._conditions.hits

    def inject(self, toxic: Toxic) -> None:
        """Let a fault begin, in place of the one there may be."""
        self._call(self._inject(toxic))

    def heal(self) -> None:
        """End the fault. What was held back is delivered, unless its connection is gone."""
        self._call(self._inject(None))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    async def _inject(self, toxic: Toxic | None) -> None:
        self._conditions.change(toxic)
        kind = None if toxic is None else toxic.kind
        if kind is Kind.REFUSE:
            await self._stop_listening()
        else:
            await self._listen()
        for connection, task in list(self._connections.items()):
            if kind in (Kind.REFUSE, Kind.RESET):
                self._conditions.hits += 1
                task.cancel()
            elif toxic is not None:
                connection.struck_by(toxic)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not _bound(listener, (self.host, self.port)):  # noqa: ASYNC110 - nobody tells when a port is free
                    await asyncio.sleep(0.02)
        except BaseException:
            listener.close()
            raise
        listener.listen(_BACKLOG)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    async def _stop_listening(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            if self._conditions.kind is Kind.RESET:
                self._conditions.hits += 1
                reset(client)
                continue
            connection = Proxied(client, self._upstream, self._conditions, self._observe())
            task = asyncio.create_task(connection.run())
            self._connections[connection] = task
            task.add_done_callback(partial(self._forget, connection))

    def _forget(self, connection: Proxied, _: "asyncio.Task[None]") -> None:
        del self._connections[connection]

    async def _end(self) -> None:
        await self._stop_listening()
        tasks = list(self._connections.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _bound(listener: socket.socket, address: tuple[str, int]) -> bool:
    try:
        listener.bind(address)
    except OSError:
        return False
    return True


class AnswerTimes:
    """Collects, over all connections of a proxy, the seconds from complete request headers to the answer's beginning.

    Requests must not be pipelined. `longest_s` may be read from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._longest_s = 0.0

    def observe(self) -> Observer:
        """Return the observer of one connection."""
        return _Exchange(self)

    @property
    def longest_s(self) -> float:
        """The longest time so far, answers that are still awaited not among them."""
        with self._lock:
            return self._longest_s

    def add(self, seconds: float) -> None:
        """Count one answer."""
        with self._lock:
            self._longest_s = max(self._longest_s, seconds)


class _Exchange:
    """One connection: headers, perhaps a body, an answer, and again."""

    def __init__(self, times: AnswerTimes) -> None:
        self._times = times
        self._headers = b""
        self._complete_at_s: float | None = None

    def got(self, data: bytes) -> None:
        """Take note of a part of a request."""
        if self._complete_at_s is None:
            self._headers += data
            if b"\r\n\r\n" in self._headers:
                self._complete_at_s = time.monotonic()

    def said(self, data: bytes) -> None:
        """Take note of a part of an answer, or of the end of the connection, which is none."""
        if data and self._complete_at_s is not None:
            self._times.add(time.monotonic() - self._complete_at_s)
            self._headers = b""
            self._complete_at_s = None
