"""An open loop: callbacks are sent when they are due, whatever has become of those before."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, cast
from urllib.parse import urlsplit

from msgspec import Struct

from bench.load.payloads import Payload

#: Kept open and used in turn, and as many as are needed on top: a slow answer delays no other callback.
CONNECTIONS = 64


class Sent(Struct, frozen=True, kw_only=True):
    """A callback that was answered. Both moments are of the monotonic clock.

    Its latency counts from when it was due, not from when it was sent: a sender that is late because answers are hides
    nothing (coordinated omission).
    """

    event_id: str
    status: int
    due_at_s: float
    answered_at_s: float

    @property
    def latency_ms(self) -> float:
        """From when it was due to the whole answer."""
        return (self.answered_at_s - self.due_at_s) * 1e3


class Sender:
    """Sends callbacks over its own connections; an async context manager."""

    def __init__(self, url: str, *, connections: int = CONNECTIONS) -> None:
        split = urlsplit(url)
        self._connections = connections
        self._host, self._port = split.hostname or "", split.port or 80
        self._head = (
            f"POST {split.path} HTTP/1.1\r\nHost: {split.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self._free: deque[_Connection] = deque()
        self._all: list[_Connection] = []

    async def __aenter__(self) -> Self:
        self._free.extend([await self._connect() for _ in range(self._connections)])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for connection in self._all:
            connection.close()
        await asyncio.gather(*(connection.closed.wait() for connection in self._all))

    async def send_all(self, payloads: Sequence[Payload], *, per_s: float, on_due: Callable[[str], None]) -> list[Sent]:
        """Send each when it is due, `per_s` in a second evenly; return what was answered, in their order.

        `on_due` is told the event_id just before it is sent. Raises `OSError` if a connection breaks.
        """
        began_s = time.monotonic()
        tasks = []
        for number, payload in enumerate(payloads):
            due_at_s = began_s + number / per_s
            wait_s = due_at_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            on_due(payload.event_id)
            tasks.append(asyncio.create_task(self._send(payload, due_at_s)))
        return list(await asyncio.gather(*tasks))

    async def _send(self, payload: Payload, due_at_s: float) -> Sent:
        connection = self._free.popleft() if self._free else await self._connect()
        request = b"%b%d\r\n\r\n%b" % (self._head, len(payload.body), payload.body)
        status, answered_at_s = await connection.ask(request)
        self._free.append(connection)
        return Sent(event_id=payload.event_id, status=status, due_at_s=due_at_s, answered_at_s=answered_at_s)

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        self._all.append(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection with at most one request on its way. Answers have a Content-Length and fit into memory."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, float]] | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended or len(body) < _content_length(head) or self._answer is None:
            return
        self._received = b""
        answer, self._answer = self._answer, None
        answer.set_result((int(head[9:12]), time.monotonic()))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    async def ask(self, request: bytes) -> tuple[int, float]:
        """Send a request; return the answer's status, and when it was here whole."""
        assert self._transport is not None  # noqa: S101 - it is connected
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Let go."""
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
