"""The socket under an AMQP connection, with a way past the library for what there is much of.

aiormq takes several tasks, queues and locks for each message and each confirm: two thirds of the cost of publishing.
So whole frames of published messages and acknowledgements are written to the socket directly, and those of confirms,
returns and deliveries are taken out of what arrives, on the channels that ask for it. Handshake, heartbeats, requests
and their answers, and the closing of channels stay the library's: it sees the same connection without these frames.

Of aiormq this uses that a `TransportFactory` makes the streams of a connection, that each write of its own holds whole
frames, and that any frame keeps the connection from being taken for silent. tests/broker/test_amqp_wire.py fails if
that is no longer so.

A frame is a byte of kind, a channel, a length, that many bytes, and `FRAME_END`:
https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, section 4.2.3. Everything else on a connection is aiormq's.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from struct import Struct as Layout
from typing import Any, NamedTuple, TypeAlias

from aiormq import AMQPConnectionError
from aiormq.connection import TransportFactory
from yarl import URL

from broker.amqp.endpoints import Resolver

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
#: What a frame has besides its payload.
FRAME_OVERHEAD = 8

#: Class and method, as the first four bytes of a method's payload.
PUBLISH = b"\0\x3c\0\x28"
RETURN = b"\0\x3c\0\x32"
DELIVER = b"\0\x3c\0\x3c"
ACK = b"\0\x3c\0\x50"
NACK = b"\0\x3c\0\x78"
BLOCKED = b"\0\x0a\0\x3c"
UNBLOCKED = b"\0\x0a\0\x3d"

#: Of the connection, by the broker: why it ends it.
CLOSE = b"\0\x0a\0\x32"

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"

FRAME_HEAD = Layout(">BHI")
_FRAME_ENDING = bytes((FRAME_END,))
_BASIC_CLASS = b"\0\x3c\0\0"
_CONTENT = Layout(">4sQ")
_TAG = Layout(">QB")
_CLOSE = Layout(">HB")
_MANDATORY = b"\x01"
_ACK_FRAME = Layout(">BHI4sQBB")


#: Of frames, which are whole in a row of these.
Piece: TypeAlias = bytes | memoryview


class Confirm(NamedTuple):
    """The broker's word on one publish, or with `multiple` on all up to it: kept, or refused."""

    tag: int
    multiple: bool
    is_kept: bool


class Arrival(NamedTuple):
    """A message that the broker delivered, or returned as unroutable (then `tag` is 0 and `routing_key` empty).

    `properties` are as in the frame: two bytes of flags, then those that are there.
    """

    tag: int
    routing_key: str
    properties: bytes
    body: bytes


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return b"%b%b\xce" % (FRAME_HEAD.pack(kind, channel, len(payload)), payload)


def publish_frame(channel: int, exchange: str, routing_key: str) -> bytes:
    """Return the first frame of a mandatory publish; the content's frames follow. Raises ValueError for long names."""
    return frame(METHOD, channel, PUBLISH + b"\0\0" + short_text(exchange) + short_text(routing_key) + _MANDATORY)


def content_frames(channel: int, properties: bytes, body: bytes, max_frame_bytes: int) -> list[Piece]:
    """Return the pieces of the header frame and of as many body frames as the body needs, which is not copied."""
    pieces: list[Piece] = [frame(HEADER, channel, _CONTENT.pack(_BASIC_CLASS, len(body)) + properties)]
    most = max_frame_bytes - FRAME_OVERHEAD
    view = memoryview(body)
    for start in range(0, len(body), most):
        part = view[start : start + most]
        pieces += (FRAME_HEAD.pack(BODY, channel, len(part)), part, _FRAME_ENDING)
    return pieces


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return an acknowledgement of one delivery, or with `multiple` of all up to it."""
    return _ACK_FRAME.pack(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def short_text(text: str) -> bytes:
    """Return a short string: at most 255 bytes of UTF-8. Raises ValueError for more."""
    encoded = text.encode()
    return b"%c%b" % (len(encoded), encoded)


def read_confirm(payload: bytes) -> Confirm:
    """Read the payload of an `ACK` or `NACK` that the broker sent."""
    tag, bits = _TAG.unpack_from(payload, 4)
    return Confirm(tag, bool(bits & 1), payload[:4] == ACK)


class Arrivals:
    """Puts messages together that come in several frames: a method, a header, and bodies until it is whole."""

    def __init__(self) -> None:
        self._method: bytes | None = None
        self._properties: bytes | None = None
        self._missing_bytes = 0
        self._parts: list[bytes] = []

    def begin(self, method: bytes) -> None:
        """Take the payload of a `DELIVER` or `RETURN`; its header must follow."""
        self._method = method
        self._properties = None

    def add(self, kind: int, payload: bytes) -> Arrival | None:
        """Take the next header or body; return the message once it is whole. What belongs to none is passed over."""
        if self._method is None:
            return None
        if kind == HEADER:
            _, self._missing_bytes = _CONTENT.unpack_from(payload)
            self._properties = payload[_CONTENT.size :]
            self._parts = []
        elif self._properties is not None:
            self._parts.append(payload)
            self._missing_bytes -= len(payload)
        if self._properties is None or self._missing_bytes > 0:
            return None
        method, self._method = self._method, None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return _arrival(method, self._properties, body)


def _arrival(method: bytes, properties: bytes, body: bytes) -> Arrival:
    if method[:4] == RETURN:
        return Arrival(0, "", properties, body)
    # Consumer tag, delivery tag, redelivered (1 byte), exchange, routing key.
    at = 5 + method[4]
    tag, _ = _TAG.unpack_from(method, at)
    at += _TAG.size
    at += 1 + method[at]
    return Arrival(tag, method[at + 1 : at + 1 + method[at]].decode(errors="replace"), properties, body)


#: How long an address may take to accept a connection, before the host's next: time for one packet that is lost.
ACCEPT_TIMEOUT_S = 2.0

#: How often it is looked whether something arrived.
_BEAT_S = 0.25

#: In bytes; as asyncio's own streams have it.
_STREAM_LIMIT = 64 * 1024

#: While nothing arrives but frames that are taken, the library is given a heartbeat this often.
_HEARTBEAT_EVERY_S = 0.5

#: Is given the kind and the payload of a frame; returns whether it takes it.
Taker: TypeAlias = Callable[[int, bytes], bool]

#: Is given what has arrived, and where in it a method's frame begins and ends; returns up to where it takes the frames
#: that begin there, or 0 for none.
QuickTaker: TypeAlias = Callable[[bytes, int, int], int]


class Wire(TransportFactory):
    """Connects for the library, and keeps hold of the socket.

    `on_blocked` is called when the broker says that it reads nothing more of us, or reads again: a broker that is
    short of memory or disk stops whoever publishes. https://www.rabbitmq.com/docs/connection-blocked
    """

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = resolver or Resolver()
        self._takers: dict[int, Taker] = {}
        self._quick_takers: dict[int, QuickTaker] = {}
        self._transport: asyncio.WriteTransport | None = None
        #: Set by whatever arrives, and by each step of connecting; see `hears`.
        self.has_heard = False
        #: Whether the socket is closed, from this side or the other: known before the library knows.
        self.is_lost = False
        self.is_blocked = False
        self.on_blocked: Callable[[], None] | None = None
        #: With which code and words the broker ended the connection.
        self.refusal: tuple[int, str] | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by the library."""
        context = await kwargs["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_STREAM_LIMIT, loop=loop)
        try:
            accepted = await self._connect(url.host or "", url.port or 0)
            transport, protocol = await loop.create_connection(
                lambda: _Separator(reader, self),
                sock=accepted,
                ssl=context,
                server_hostname=url.host if context else None,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.has_heard = True
        self._transport = transport
        if self.is_lost:
            transport.abort()
            raise AMQPConnectionError("given up meanwhile")
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def hears(self, *, within_s: float) -> bool:
        """Return True as soon as something has arrived, or False when nothing has for `within_s`.

        A peer that takes what is sent to it is alive, too: a large message on a slow line is all that it hears. What
        counts is time in which the event loop turns: after a stall it is not known yet what has arrived.
        """
        unsent = self._unsent_bytes
        for _ in range(max(1, round(within_s / _BEAT_S))):
            await asyncio.sleep(_BEAT_S)
            before, unsent = unsent, self._unsent_bytes
            if self.has_heard or unsent < before:
                self.has_heard = False
                return True
        return False

    @property
    def _unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def attach(self, channel: int, taker: Taker, quick: QuickTaker | None = None) -> None:
        """Offer every frame of `channel` to `taker` before the library, and before that each method to `quick`."""
        self._takers[channel] = taker
        if quick is not None:
            self._quick_takers[channel] = quick

    def detach(self, channel: int, taker: Taker) -> None:
        """Leave the channel to the library, unless it has another taker by now: numbers are used again."""
        if self._takers.get(channel) == taker:
            del self._takers[channel]
            self._quick_takers.pop(channel, None)

    def write(self, frames: bytes) -> None:
        """Send whole frames, in this order, after what was sent before. Nothing happens if the connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def write_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send whole frames like `write`, without a copy of them where the event loop can."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(pieces)

    def abort(self) -> None:
        """End the connection at once; what is still to be sent is thrown away."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def offer(self, channel: int, kind: int, payload: bytes) -> bool:
        """Give a frame to the channel's taker, if it has one; say whether it took it."""
        if channel == 0:
            self._watch(kind, payload)
            return False
        taker = self._takers.get(channel)
        return taker is not None and taker(kind, payload)

    def quick_taker(self, channel: int) -> QuickTaker | None:
        """Return what is to be asked before `offer`."""
        return self._quick_takers.get(channel)

    async def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first of the host's addresses that accepts it."""
        addresses = await self._resolver.resolve(host)
        for address in addresses[:-1]:
            try:
                return await self._connect_to(address, port)
            except OSError:
                continue
        return await self._connect_to(addresses[-1], port)

    async def _connect_to(self, address: str, port: int) -> socket.socket:
        self.has_heard = True
        connecting = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connecting.setblocking(False)
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(connecting, (address, port))
        except BaseException as error:
            connecting.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no connection within {ACCEPT_TIMEOUT_S:g} s") from None
            raise
        self.has_heard = True
        return connecting

    def _watch(self, kind: int, payload: bytes) -> None:
        if kind == METHOD and payload[:4] in (BLOCKED, UNBLOCKED):
            self.is_blocked = payload[:4] == BLOCKED
            if self.on_blocked is not None:
                self.on_blocked()
        elif kind == METHOD and payload[:4] == CLOSE:
            code, size = _CLOSE.unpack_from(payload, 4)
            self.refusal = code, payload[4 + _CLOSE.size :][:size].decode(errors="replace")


class _Separator(asyncio.StreamReaderProtocol):
    """Cuts what arrives into frames; the library's stream gets those that nobody takes."""

    def __init__(self, reader: asyncio.StreamReader, wire: Wire) -> None:
        self._loop_of_wire = asyncio.get_running_loop()
        super().__init__(reader, loop=self._loop_of_wire)
        self._wire = wire
        self._rest = b""
        self._is_garbled = False
        self._passed_on_at_s = 0.0

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, wherever they are cut."""
        self._wire.has_heard = True
        if self._is_garbled:
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        at = 0
        others: list[bytes] = []
        while len(data) - at >= FRAME_OVERHEAD:
            kind, channel, size = FRAME_HEAD.unpack_from(data, at)
            end = at + FRAME_OVERHEAD + size
            if end > len(data):
                break
            if data[end - 1] != FRAME_END:
                # The library says what is wrong with it, and ends the connection.
                self._is_garbled = True
                others.append(data[at:])
                at = len(data)
                break
            if kind == METHOD and (quick := self._wire.quick_taker(channel)) and (taken := quick(data, at, end)):
                at = taken
                continue
            if not self._wire.offer(channel, kind, data[at + FRAME_OVERHEAD - 1 : end - 1]):
                others.append(data[at:end])
            at = end
        self._rest = data[at:]
        self._pass_on(b"".join(others), took_some=at > 0)

    def eof_received(self) -> bool | None:
        """Pass on what is no whole frame: it may be the broker's word on a version it does not speak."""
        self._wire.is_lost = True
        self._pass_on(self._rest, took_some=False)
        self._rest = b""
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Know that nothing can be sent any more."""
        self._wire.is_lost = True
        super().connection_lost(exc)

    def _pass_on(self, others: bytes, *, took_some: bool) -> None:
        now_s = self._loop_of_wire.time()
        if not others and took_some and now_s - self._passed_on_at_s > _HEARTBEAT_EVERY_S:
            others = HEARTBEAT
        if others:
            self._passed_on_at_s = now_s
            super().data_received(others)
