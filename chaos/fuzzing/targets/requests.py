"""What stands in a request's head, and in the file of the callback keys."""

import re
from typing import Any, cast

import msgspec
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from chaos.fuzzing.outcome import promise
from chaos.fuzzing.standing_loop import StandingLoop
from ingest import KeysError, parse_keys
from ingest.connections import MAX_HEADER_BYTES, MAX_HEADERS
from ingest.keys import MAX_CHARACTERS
from ingest.refusals import Refusal, RefusedError
from ingest.request import check_headers, traceparent
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


_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_PRINTED = 8


def keys(content: bytes) -> None:
    """Use a file of keys whole, or refuse it with a sentence that quotes no key."""
    try:
        found = parse_keys(content)
    except KeysError as error:
        _check_secret(content, str(error))
        return
    promise(found and all(found.values()), "every SdkAppId that is named has keys")
    promise(all(0 <= app < 10**19 for app in found), "an SdkAppId is a decimal number of 19 digits at most")
    lengths = {len(key) for app_keys in found.values() for key in app_keys}
    promise(lengths <= set(range(1, MAX_CHARACTERS + 1)), "a key has 1 to 64 characters")
    expected = {str(app): list(app_keys) for app, app_keys in found.items()}
    promise(msgspec.json.decode(content) == expected, "the keys are those of the file")


def trace(header: bytes) -> None:
    """Pass on a trace that is one: the one that was received, or a new one."""
    # As aiohttp reads a header.
    received = header.decode("utf-8", "surrogateescape")
    travelling = traceparent(received)
    promise(_TRACEPARENT.fullmatch(travelling), "what travels on is a traceparent")
    promise(int(travelling[3:35], 16) and int(travelling[36:52], 16), "neither id of a traceparent is zero")
    is_one = _TRACEPARENT.fullmatch(received) and int(received[3:35], 16) and int(received[36:52], 16)
    promise(not is_one or travelling == received, "a trace that a proxy began is kept")


def _check_secret(content: bytes, sentence: str) -> None:
    """Check that a run of 8 characters of any key is not quoted."""
    sentence = sentence.replace("1400000001", "")  # the example that every sentence gives
    secrets = [secret for secret in re.findall(rb"[A-Za-z0-9]{8,64}", content) if not secret.isdigit()]
    quoted = [secret for secret in secrets if secret[:_PRINTED].decode() in sentence and secret not in _OUR_WORDS]
    promise(not quoted, "an error about keys quotes none")


#: Of our own sentences, so that a file that holds one of them proves nothing.
_OUR_WORDS = frozenset(b"callback SdkAppId 1400000001 decimal characters".split())
