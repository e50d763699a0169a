"""A request, from its headers to its complete body, with every refusal on the way in its order."""

import asyncio
import hmac

from aiohttp import web

from ingest.config import IngestConfig
from ingest.refusals import Refusal, RefusedError
from ingest.room import Share

#: From a request's complete headers to its complete body, however it drips.
BODY_TIMEOUT_S = 2.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def check_headers(request: web.BaseRequest, config: IngestConfig) -> None:
    """Raise `RefusedError` for a request whose body need not be read: 404, 405, 415, 413 in this order."""
    path = request.rel_url.raw_path.encode("utf-8", "surrogateescape")
    # The path may hold a secret; the comparison takes as long wherever it differs.
    if not hmac.compare_digest(path, config.path.encode()):
        raise RefusedError(Refusal.WRONG_PATH)
    if request.method != "POST":
        raise RefusedError(Refusal.WRONG_METHOD)
    if any(coding.strip().lower() not in ("", "identity") for coding in request.headers.getall("Content-Encoding", ())):
        raise RefusedError(Refusal.ENCODED)
    if (request.content_length or 0) > config.max_body_bytes:
        raise RefusedError(Refusal.TOO_LARGE)


async def read_body(request: web.BaseRequest, share: Share, *, max_bytes: int) -> bytes:
    """Return the whole body. Every part of it is taken from `share` as it arrives.

    Raises `RefusedError`: 413 over `max_bytes`, 408 after `BODY_TIMEOUT_S`, 503 if there is no room, 400 if the
    sender hangs up or breaks the framing.
    """
    content = request.content
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if request.headers.get("Expect", "").lower() == "100-continue" and not content.is_eof():
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0  # or the answer would look as if it had begun
            while not content.at_eof():
                part = await content.readany()
                share.take(len(part))
                body += part
                if len(body) > max_bytes:
                    raise RefusedError(Refusal.TOO_LARGE)
    except TimeoutError:
        raise RefusedError(Refusal.TOO_SLOW) from None
    except (ConnectionError, web.RequestPayloadError):
        raise RefusedError(Refusal.HUNG_UP) from None
    return bytes(body)
