"""One connection of ingest, served twice: as one of plain requests, and by aiohttp alone. Both must be the same."""

import asyncio
import re
from collections.abc import Callable, Sequence

from aiohttp import web
from msgspec import Struct

from broker import Message, NotPublishedError, OnPublished
from chaos.fuzzing.outcome import promise
from chaos.fuzzing.serving import ALLOW_UNSIGNED, KEYS, PATH_TOKEN
from ingest import IngestConfig, KeyRing, Refusal
from ingest.callbacks import Callbacks
from ingest.connections import Connections
from ingest.durability import Durability
from ingest.plain import Head, Heads, PlainConnections
from ingest.spool import NoSpool
from telemetry import metrics

CONFIG = IngestConfig(
    path_token=PATH_TOKEN, max_body_bytes=16 * 1024, allow_unsigned=frozenset(ALLOW_UNSIGNED - set(KEYS))
)

#: After so many turns of the loop in which nothing happens, nothing more will.
_QUIET_TURNS = 12

_DATE = re.compile(rb"\r\nDate: [^\r]*")
_COUNTED = (
    *(metrics.CALLBACKS_ACCEPTED, metrics.CALLBACKS_REFUSED, metrics.CALLBACKS_NOT_KEPT, metrics.CALLBACKS_SPOOLED),
    *(metrics.CALLBACKS_PAIR_REUSED, metrics.CALLBACKS_PARTLY_UNDERSTOOD, metrics.CONNECTIONS_EVICTED),
)
_TIMED = {"answer_seconds": metrics.ANSWER_SECONDS, "publish_seconds": metrics.PUBLISH_SECONDS}


class Served(Struct, frozen=True, kw_only=True):
    """What became of a connection: what was written, whether it was closed, what was published, what was counted."""

    written: bytes
    is_closed: bool
    published: list[tuple[str, str, bytes, str]]
    counted: dict[str, float]


class Cable(asyncio.Transport):
    """A transport without a socket. What it is given to read waits while reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: asyncio.BaseProtocol | None = None
        self._incoming: list[bytes] = []
        self._is_closed = False
        self._is_paused = False

    def give(self, data: bytes) -> None:
        """Let the server read `data`, as soon as it reads."""
        self._incoming.append(data)
        self._read()

    def hang_up(self) -> None:
        """Close it from the other side."""
        self.close()

    def _read(self) -> None:
        while self._incoming and not self._is_paused and not self._is_closed:
            assert isinstance(self.protocol, asyncio.Protocol)  # noqa: S101 - whoever serves
            self.protocol.data_received(self._incoming.pop(0))

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None  # noqa: S101 - whoever serves
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self._read)

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self.get_protocol().connection_lost, None)

    def abort(self) -> None:
        self.close()


class Confirming:
    """Publishes nothing, says so in the next turn, and remembers; it fails where `fails` says so, by the number."""

    is_ready = True

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.messages: list[Message] = []
        self._fails = fails

    async def publish(self, message: Message) -> None:
        await asyncio.sleep(0)
        error = self._note(message)
        if error is not None:
            raise error

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        asyncio.get_running_loop().call_soon(on_done, self._note(message))
        return True

    def _note(self, message: Message) -> NotPublishedError | None:
        self.messages.append(message)
        return NotPublishedError("it fails") if self._fails(len(self.messages)) else None


class NothingIsPlain(Heads):
    """Leaves everything to aiohttp."""

    def judge(self, head: bytes) -> Head | None:
        del head
        return None


class Way:
    """A node without a listener, whose connections begin as `heads` says."""

    def __init__(self, heads: Heads, publisher: Confirming) -> None:
        self.publisher = publisher
        durability = Durability(self.publisher, NoSpool(), budget=CONFIG.budget, max_unconfirmed=CONFIG.max_unconfirmed)
        self.callbacks = Callbacks(CONFIG, durability, KeyRing(KEYS), rejected=None)
        self.connections = Connections(self.callbacks.answer, on_error=self._on_error, limit=CONFIG.max_connections)
        self.protocols = PlainConnections(self.connections, self.callbacks, heads)

    async def serve(self, pieces: Sequence[bytes], *, turns: int) -> Served:
        """Serve a connection on which `pieces` come, so many turns of the loop apart, until it is hung up."""
        before = _counts()
        published_before = len(self.publisher.messages)
        cable = Cable()
        cable.protocol = self.protocols()
        cable.protocol.connection_made(cable)
        for piece in pieces:
            cable.give(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        await self._quiet(cable)
        is_closed = cable.is_closing()
        cable.hang_up()
        await self._quiet(cable)
        promise(not self.callbacks.running, "no callback is left over")
        promise(
            not self.callbacks.in_flight.taken and not self.callbacks.in_flight.taken_bytes, "all room is given back"
        )
        promise(not self.connections.count, "no connection is left over")
        return Served(
            written=without_dates(cable.written),
            is_closed=is_closed,
            published=[
                (message.event_id, message.routing_key, message.body, _trace(message, pieces))
                for message in self.publisher.messages[published_before:]
            ],
            counted={
                name: count - before.get(name, 0) for name, count in _counts().items() if count != before.get(name, 0)
            },
        )

    async def _quiet(self, cable: Cable) -> None:
        quiet, last = 0, None
        while quiet < _QUIET_TURNS:
            await asyncio.sleep(0)
            now = len(cable.written), len(self.publisher.messages), self.callbacks.running, cable.is_closing()
            quiet = quiet + 1 if now == last else 0
            last = now

    def _on_error(self, status: int, error: BaseException | None) -> web.StreamResponse:
        promise(status < 500, f"nothing raises {error!r}")  # noqa: PLR2004 - HTTP's
        return self.callbacks.refuse(Refusal.MALFORMED_HTTP)


class BothWays:
    """Serves each connection in both ways, one after the other."""

    def __init__(self, *, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.plain = Way(Heads(path=CONFIG.path), Confirming(fails))
        self.careful = Way(NothingIsPlain(path=CONFIG.path), Confirming(fails))

    async def compare(self, pieces: Sequence[bytes], *, turns: int = 0) -> Served:
        """Return what became of a connection. Raises `BrokenPromiseError` unless it is the same in both ways."""
        plain = await self.plain.serve(pieces, turns=turns)
        careful = await self.careful.serve(pieces, turns=turns)
        promise(plain.written == careful.written, "a plain connection writes what aiohttp's does")
        promise(plain.is_closed == careful.is_closed, "a plain connection is closed when aiohttp's is")
        promise(plain.published == careful.published, "a plain connection publishes what aiohttp's does")
        promise(plain.counted == careful.counted, "a plain connection counts what aiohttp's does")
        return plain


def without_dates(written: bytes) -> bytes:
    """Return answers as they would be at any other time."""
    return _DATE.sub(b"", written)


def _trace(message: Message, pieces: Sequence[bytes]) -> str:
    """Return the trace that came, and not one that was made up."""
    return message.trace if message.trace.encode() in b"".join(pieces) else ""


def _counts() -> dict[str, float]:
    metrics.flush()
    counts = {
        f"{sample.name} {sample.labels}": sample.value
        for metric in _COUNTED
        for family in metric.collect()
        for sample in family.samples
    }
    # To ask it for its samples takes longer than all else here.
    timed = {name: sum(bucket.get() for bucket in metric._buckets) for name, metric in _TIMED.items()}  # noqa: SLF001
    return counts | timed
