"""What the tests of fetching share: names that lead where a test says, sockets that count, and HTTP that is broken."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from archive import Fetched, Fetcher, FetchError, FileHeaders, Wanted

SECRET = "q-signature=0123456789"


class Names(AbstractResolver):
    """Looks names up in a table. Each lookup of a name takes its next answer, the last one for ever."""

    def __init__(self, names: Mapping[str, Sequence[Sequence[str]]], *, others: Sequence[str] = ()) -> None:
        self._names = {name: list(answers) for name, answers in names.items()}
        self._others = others
        self.asked: list[str] = []

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the table has them all
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._names.get(host, [self._others])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer:
            raise OSError("no such name")
        return [_result(host, address, port) for address in answer]

    async def close(self) -> None:
        """Close nothing."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    with suppress(ValueError):
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
    return ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)


class Listener:
    """Counts the connections to a port of 127.0.0.1, and of ::1 where there is one."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    def _count(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener._count, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    servers = [server]
    with suppress(OSError):
        servers.append(await asyncio.start_server(listener._count, "::1", listener.port))
    try:
        yield listener
    finally:
        for one in servers:
            one.close()
            await one.wait_closed()


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Answers each request with the next of `answers`, the last one for ever, byte for byte."""

    def __init__(self, *answers: bytes | Answer) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []
        self.url = ""

    @property
    def host(self) -> str:
        """Its address and port."""
        return self.url.split("/")[2]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def answering(*answers: bytes | Answer) -> AsyncIterator[RawServer]:
    raw = RawServer(*answers)
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(raw._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    raw.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.mp4?{SECRET}"
    try:
        yield raw
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await server.wait_closed()


async def until(condition: Callable[[], bool], *, deadline_s: float = 10.0) -> None:
    """Wait for what the caller's own doing brings about."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - a file grows and tells nobody
            await asyncio.sleep(0.002)


class Caller:
    """Fetches one file as the archive does: remembers what it was told, and tries again with that."""

    def __init__(self, fetcher: Fetcher, part: Path, url: str, *, announced_size: int | None = None) -> None:
        self.fetcher = fetcher
        self.part = part
        self.url = url
        self.announced_size = announced_size
        self.accept_other_size = False
        self.seen_size: int | None = None
        self.headers: list[FileHeaders] = []
        self.progress: list[int] = []

    def wanted(self) -> Wanted:
        last = self.headers[-1] if self.headers else None
        return Wanted(
            url=self.url,
            part=self.part,
            is_vendors_address=True,
            announced_size=self.announced_size,
            accept_other_size=self.accept_other_size,
            seen_size=self.seen_size,
            etag=last.etag if last else None,
            last_modified_at=last.last_modified_at if last else None,
        )

    async def _note(self, headers: FileHeaders) -> None:
        self.headers.append(headers)

    async def fetch(self) -> Fetched:
        return await self.fetcher.fetch(self.wanted(), on_progress=self.progress.append, on_headers=self._note)

    async def fail(self) -> FetchError:
        """Fetch, and return why that failed. An error tells nothing that is secret."""
        with pytest.raises(FetchError) as caught:
            await self.fetch()
        error = caught.value
        assert SECRET not in f"{error!r} {error} {error.reason} {error.__cause__}"
        return error

    @property
    def length(self) -> int:
        """What is in the part file."""
        return self.part.stat().st_size if self.part.exists() else 0
