"""What the sender gets back. Only the status counts for it: 200, and nothing else, means that it is done."""

import msgspec
from aiohttp import web

from ingest.refusals import Refusal

_JSON = "application/json"
_KEPT = b'{"error_code":0}'

#: After these the rest of the body may still be on its way: the connection is of no more use.
_CLOSING = frozenset({Refusal.TOO_LARGE, Refusal.TOO_SLOW, Refusal.HUNG_UP, Refusal.MALFORMED_HTTP, Refusal.BROKEN})


def kept() -> web.Response:
    """Return the answer that means: durable."""
    return web.Response(body=_KEPT, content_type=_JSON)


def refused(refusal: Refusal) -> web.Response:
    """Return the answer for a callback that was not kept."""
    body = msgspec.json.encode({"error_code": refusal.status, "error_message": refusal.sentence})
    answer = web.Response(status=refusal.status, body=body, content_type=_JSON)
    if refusal is Refusal.WRONG_METHOD:
        answer.headers["Allow"] = "POST"
    if refusal in _CLOSING:
        answer.force_close()
    return answer
