"""One connection through a proxy: both its directions, under the conditions of the moment."""

import asyncio
import contextlib
import socket
import struct
import time
from random import Random
from typing import Protocol

from chaos.faults.toxics import Direction, Kind, Toxic

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
