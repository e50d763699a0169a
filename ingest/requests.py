"""A request, from its headers to its complete body, with every refusal on the way in its order."""

import asyncio
import hmac

from aiohttp import hdrs, web

from ingest.refusals import Refusal, RefusedError
from ingest.room import Share

#: From a request's complete headers to its complete body, however it drips.
BODY_TIMEOUT_S = 2.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


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
        coding.strip().lower() not in ("", "identity") for coding in headers.getall(hdrs.CONTENT_ENCODING)
    ):
        raise RefusedError(Refusal.ENCODED)
    content = request.content
    size_bytes = content.total_bytes if content.is_eof() else request.content_length or 0
    if size_bytes > max_body_bytes:
        raise RefusedError(Refusal.TOO_LARGE)


def _is_for(path: bytes, request: web.BaseRequest) -> bool:
    # The path may hold a secret; the comparison takes as long wherever it differs.
    return hmac.compare_digest(request.raw_path.encode("utf-8", "surrogateescape"), path) or hmac.compare_digest(
        # Behind the path may stand a query, before it a scheme and a host.
        request.rel_url.raw_path.encode("utf-8", "surrogateescape"),
        path,
    )


async def read_body(request: web.BaseRequest, share: Share, *, max_bytes: int) -> bytes:
    """Return the whole body. Every part of it is taken from `share` as it arrives.

    Raises `RefusedError`: 413 over `max_bytes`, 408 after `BODY_TIMEOUT_S`, 503 if there is no room, 400 if the
    sender hangs up or breaks the framing.
    """
    try:
        if request.content.is_eof():
            # The common case: it came with its headers. Nothing has to be waited for, and no timer set.
            body = request.content.read_nowait()
            share.take(len(body))
        else:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _receive(request, share, max_bytes=max_bytes)
    except TimeoutError:
        raise RefusedError(Refusal.TOO_SLOW) from None
    except (ConnectionError, web.RequestPayloadError):
        raise RefusedError(Refusal.HUNG_UP) from None
    if len(body) > max_bytes:
        raise RefusedError(Refusal.TOO_LARGE)
    return body


async def _receive(request: web.BaseRequest, share: Share, *, max_bytes: int) -> bytes:
    """Read to the end, or to the part that makes it more than `max_bytes`."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # or the answer would look as if it had begun
    body = bytearray()
    while not request.content.at_eof() and len(body) <= max_bytes:
        part = await request.content.readany()
        share.take(len(part))
        body += part
    return bytes(body)
