"""A TCP proxy that spoils what goes through it, on command. It runs in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, Self, TypeVar

from chaos.faults.proxied import NO_OBSERVER, Conditions, Observer, Proxied, reset
from chaos.faults.toxics import Kind, Toxic

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
