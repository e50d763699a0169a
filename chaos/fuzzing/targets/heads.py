"""The head of a request, from its bytes to the question whether its body is read at all."""

from typing import Any, cast

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from chaos.fuzzing.promises import promise
from chaos.fuzzing.standing_loop import StandingLoop
from ingest.connections import MAX_HEADER_BYTES, MAX_HEADERS
from ingest.refusals import Refusal, RefusedError
from ingest.request import check_headers
from telemetry import with_target

_PATH = b"/callbacks/tiw/a-path-token-for-fuzzing"
_MAX_BODY_BYTES = 1000
_REFUSALS = frozenset({Refusal.WRONG_PATH, Refusal.WRONG_METHOD, Refusal.ENCODED, Refusal.TOO_LARGE})
_READ_BUFFER_BYTES = 2**16


class _Nobody:
    """The connection of a request, as far as a head asks for it."""

    ssl_context = None
    peername = None
    sockname = None
    transport = None


def heads(data: bytes) -> None:
    """Let pass what is a plain POST to the one address, and refuse the rest for what is documented."""
    loop = StandingLoop()  # type: ignore[abstract]  # nothing else of a loop is called
    parser = HttpRequestParser(
        BaseProtocol(loop),
        loop,
        _READ_BUFFER_BYTES,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
        auto_decompress=False,
    )
    try:
        messages, _, _ = parser.feed_data(data)
    except HttpProcessingError:
        return
    nobody = cast("Any", _Nobody())
    for message, payload in messages:
        request = web.BaseRequest(with_target(message), payload, nobody, nobody, nobody, loop)
        try:
            check_headers(request, path=_PATH, max_body_bytes=_MAX_BODY_BYTES)
        except RefusedError as error:
            promise(error.refusal in _REFUSALS, "a head is refused for a reason that is documented")
        else:
            promise(request.method == "POST", "what passes is a POST")
            promise(_PATH.decode() in request.raw_path, "what passes has the path token")
            promise((request.content_length or 0) <= _MAX_BODY_BYTES, "what passes is not too large")
