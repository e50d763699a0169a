"""A network between a transport and its broker that can fail in a test's way."""

import asyncio
import contextlib
import ssl
from typing import Self


class TcpProxy:
    """Forwards TCP to `host` and `port`, from `port` of its own; an async context manager.

    With `encryption` it speaks TLS to its clients.
    """

    def __init__(self, host: str, port: int, *, encryption: ssl.SSLContext | None = None) -> None:
        self._target = (host, port)
        self._encryption = encryption
        self._frozen: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether new connections are accepted, and nothing that they say goes anywhere.
        self.swallows = False
        self.accepted = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._encryption)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.refuse()
        for writer in self._writers:
            writer.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def through(self, url: str) -> str:
        """Return the broker's address `url` by way of this proxy."""
        return url.replace(f":{self._target[1]}/", f":{self.port}/")

    def freeze(self) -> None:
        """Make the connections that there are silent, as a firewall that forgets them does; new ones work."""
        self._frozen |= self._writers

    def black_hole(self) -> None:
        """Let nothing through any more, on connections that there are and on new ones."""
        self.freeze()
        self.swallows = True

    def refuse(self) -> None:
        """Accept no new connection."""
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        if self.swallows:
            self._frozen.add(writer)
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers.add(there_writer)
        if self.swallows:
            self._frozen.add(there_writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if sink not in self._frozen:
                    sink.write(data)
                    await sink.drain()
        if sink not in self._frozen:
            sink.transport.abort()
