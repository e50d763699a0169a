"""HTTP by hand: what a well-behaved client would not send."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

PATH = "/callbacks/tiw"
DEADLINE_S = 10.0


class Answer(Struct, frozen=True, kw_only=True):
    """An answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


class Connection(Struct, frozen=True):
    """One connection to the server under test."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write `data`, whatever it is."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """Read the next answer."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status=int(head[0].split(" ")[1]), headers=headers, body=body)

    async def is_closed_by_the_server(self) -> bool:
        """Wait for the end of the connection; False if there is something to read instead."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect, and hang up on leaving."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            await asyncio.sleep(0)  # the server was faster


def request(
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = PATH,
    headers: dict[str, str] | None = None,
    content_length: int | None = None,
) -> bytes:
    """Return the bytes of a request."""
    fields = {"Host": "tests", "Content-Length": str(len(body) if content_length is None else content_length)}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (fields | (headers or {})).items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def plain_head(*lines: bytes, path: bytes = PATH.encode()) -> bytes:
    """Return the head of a POST with these headers."""
    return b"POST %b HTTP/1.1\r\n" % path + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def chunked(*chunks: bytes) -> bytes:
    """Return the bytes of a request that does not say how long it will be."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: tests\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def exchange(port: int, data: bytes) -> Answer:
    """Send `data` on a connection of its own; return the first answer."""
    async with connected(port) as connection:
        await connection.send(data)
        return await connection.answer()


async def post(port: int, body: bytes, **kwargs: Any) -> Answer:
    """Send `body` as a callback."""
    return await exchange(port, request(body, **kwargs))
