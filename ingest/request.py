"""A request, from its headers to its complete body and its answer, with every refusal on the way in its order."""

import asyncio
import hmac
import random
import re
from typing import Self

import aiohttp
import msgspec
from aiohttp import hdrs, http_parser, web

from ingest.connections import RenderedAnswer, render_answer
from ingest.refusals import Refusal, RefusedError


class InFlightLimit:
    """Counts the callbacks in flight and the bytes of their bodies; `limit` and `limit_bytes` bound them."""

    __slots__ = ("limit", "limit_bytes", "taken", "taken_bytes")

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.taken = 0
        self.taken_bytes = 0

    def fits(self, size_bytes: int) -> bool:
        """Say whether one more callback of `size_bytes` could be taken now."""
        return self.taken < self.limit and self.taken_bytes + size_bytes <= self.limit_bytes


class Reservation:
    """What one callback takes of an `InFlightLimit`: a context manager that gives all of it back, as `release` does.

    Making one counts the callback; raises `RefusedError` if there are too many.
    """

    __slots__ = ("_limit", "_taken_bytes")

    def __init__(self, limit: InFlightLimit) -> None:
        if limit.taken >= limit.limit:
            raise RefusedError(Refusal.NO_ROOM)
        limit.taken += 1
        self._limit = limit
        self._taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take more bytes; raises `RefusedError` if there is no room for them."""
        limit = self._limit
        if limit.taken_bytes + size_bytes > limit.limit_bytes:
            raise RefusedError(Refusal.NO_ROOM)
        limit.taken_bytes += size_bytes
        self._taken_bytes += size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Give all of it back, once."""
        self._limit.taken -= 1
        self._limit.taken_bytes -= self._taken_bytes


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


#: What stands in Content-Encoding and says that the body is as it is: some proxies and clients put a charset there.
_NO_CODINGS = frozenset(
    {"", "identity", "utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "gbk", "gb18030"}
)


def check_headers(request: web.BaseRequest, *, path: bytes, max_body_bytes: int) -> None:
    """Raise `RefusedError` for a request whose body need not be read: 404, 405, 415, 413 in this order.

    `path` is where callbacks are received, as it stands in a request.
    """
    if not _is_for(path, request):
        raise RefusedError(Refusal.WRONG_PATH)
    if request.method != "POST":
        raise RefusedError(Refusal.WRONG_METHOD)
    headers = request.headers
    if hdrs.CONTENT_ENCODING in headers and any(
        coding.strip().lower() not in _NO_CODINGS for coding in headers.getall(hdrs.CONTENT_ENCODING)
    ):
        raise RefusedError(Refusal.ENCODED)
    content = request.content
    size_bytes = content.total_bytes if content.is_eof() else request.content_length or 0
    if size_bytes > max_body_bytes:
        raise RefusedError(Refusal.TOO_LARGE)


#: Where load balancers ask how a node is, on the port that they send callbacks to. haproxy asks OPTIONS / by default:
#: https://docs.haproxy.org/3.0/configuration.html#4.2-option%20httpchk
_HEALTH_PATHS = frozenset({"/", "/healthz"})
_HEALTH_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def asks_for_health(request: web.BaseRequest) -> bool:
    """Say whether a request is a load balancer's health check."""
    return request.method in _HEALTH_METHODS and request.rel_url.raw_path in _HEALTH_PATHS


def _is_for(path: bytes, request: web.BaseRequest) -> bool:
    # The path may hold a secret; the comparison takes as long wherever it differs.
    if hmac.compare_digest(request.raw_path.encode("utf-8", "surrogateescape"), path):
        return True
    # Behind the path may stand a query, before it a scheme and a host; some proxies add a slash.
    found = request.rel_url.raw_path.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(found, path) or hmac.compare_digest(found, path + b"/")


async def read_body(request: web.BaseRequest, reservation: Reservation, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the whole body. Every part of it is taken from `reservation` as it arrives.

    Raises `RefusedError`: 413 over `max_bytes`, 408 after `timeout_s`, 503 if there is no room, 400 if the
    sender hangs up or breaks the framing.
    """
    try:
        if request.content.is_eof():
            # The common case: it came with its headers. Nothing has to be waited for, and no timer set.
            body = request.content.read_nowait()
            reservation.take(len(body))
        else:
            async with asyncio.timeout(timeout_s):
                body = await _receive(request, reservation, max_bytes=max_bytes)
    except TimeoutError:
        raise RefusedError(Refusal.TOO_SLOW) from None
    except (ConnectionError, web.RequestPayloadError):
        raise RefusedError(Refusal.HUNG_UP) from None
    if len(body) > max_bytes:
        raise RefusedError(Refusal.TOO_LARGE)
    return body


async def _receive(request: web.BaseRequest, reservation: Reservation, *, max_bytes: int) -> bytes:
    """Read to the end, or to the part that makes it more than `max_bytes`."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # or the answer would look as if it had begun
    body = bytearray()
    while not request.content.at_eof() and len(body) <= max_bytes:
        part = await request.content.readany()
        reservation.take(len(part))
        body += part
    return bytes(body)


#: Until then one request could keep a core busy, or be read as two:
#: https://github.com/aio-libs/aiohttp/blob/master/CHANGES.rst
OLDEST_AIOHTTP = (3, 14, 5)


class UnsafeHTTPError(RuntimeError):
    """Raised instead of starting; its text says what to do."""


def require_safe_http() -> None:
    """Raise `UnsafeHTTPError` unless aiohttp is new enough, and reads HTTP with its parser in C.

    Its fallback in pure Python is slow, and had more holes.
    """
    version = tuple(int(part) for part in re.findall(r"[0-9]+", aiohttp.__version__)[:3])
    if version < OLDEST_AIOHTTP:
        oldest = ".".join(map(str, OLDEST_AIOHTTP))
        raise UnsafeHTTPError(f"aiohttp {aiohttp.__version__} has known holes: install {oldest} or newer")
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise UnsafeHTTPError(
            "aiohttp runs without its C parser: unset AIOHTTP_NO_EXTENSIONS, or install a binary wheel of aiohttp"
        )


_JSON = "application/json"
_KEPT = b'{"error_code":0}'

#: After these the rest of the body may still be on its way: the connection is of no more use.
_CLOSING = frozenset({Refusal.TOO_LARGE, Refusal.TOO_SLOW, Refusal.HUNG_UP, Refusal.MALFORMED_HTTP, Refusal.BROKEN})


class Answers:
    """Makes answers. While `closing` is set, each says that its connection closes."""

    def __init__(self) -> None:
        self.closing = False
        self._rendered = RenderedAnswer(_KEPT, content_type=_JSON)

    def kept(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer that means: durable."""
        if self._rendered.fits(request) and not self.closing:
            return self._rendered
        return self._closing(web.Response(body=_KEPT, content_type=_JSON))

    def healthy(self, *, is_ready: bool) -> web.StreamResponse:
        """Return the answer to a health check: 200, or 503 while no callback could be kept. It says nothing else."""
        return self._closing(web.Response(status=200 if is_ready else 503))

    def refused(self, refusal: Refusal) -> web.StreamResponse:
        """Return the answer for a callback that was not kept."""
        answer = web.Response(status=refusal.status, body=_body_of(refusal), content_type=_JSON)
        if refusal is Refusal.WRONG_METHOD:
            answer.headers["Allow"] = "POST"
        if refusal in _CLOSING:
            answer.force_close()
        return self._closing(answer)

    def rendered(self, refusal: Refusal | None) -> tuple[bytes, bool]:
        """Return the answer to a plain request as it is written, and whether its connection closes; None: durable."""
        if refusal is None and not self.closing:
            return self._rendered.render(), False
        closes = self.closing or refusal in _CLOSING
        status, body = (200, _KEPT) if refusal is None else (refusal.status, _body_of(refusal))
        return render_answer(status, body, content_type=_JSON, closes=closes), closes

    def _closing(self, answer: web.Response) -> web.Response:
        if self.closing:
            answer.force_close()
        return answer


def _body_of(refusal: Refusal) -> bytes:
    return msgspec.json.encode({"error_code": refusal.status, "error_message": refusal.sentence})


_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# Seeded by the system, once: an id has to be unique, not secret, and a system call for each one is dear.
_random_bits = random.Random().getrandbits  # noqa: S311 - see above


def traceparent(received: str | None) -> str:
    """Return the traceparent that a proxy in front began, or a new one. What is not one is not passed on."""
    if received is not None and _TRACEPARENT.fullmatch(received):
        return received
    ids = f"{_random_bits(192):048x}"
    return f"00-{ids[:32]}-{ids[32:]}-01"
