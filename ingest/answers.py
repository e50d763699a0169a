"""What the sender gets back. Only the status counts for it: 200, and nothing else, means that it is done."""

import msgspec
from aiohttp import web

from ingest.connections import RenderedAnswer
from ingest.refusals import Refusal

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

    def refused(self, refusal: Refusal) -> web.StreamResponse:
        """Return the answer for a callback that was not kept."""
        body = msgspec.json.encode({"error_code": refusal.status, "error_message": refusal.sentence})
        answer = web.Response(status=refusal.status, body=body, content_type=_JSON)
        if refusal is Refusal.WRONG_METHOD:
            answer.headers["Allow"] = "POST"
        if refusal in _CLOSING:
            answer.force_close()
        return self._closing(answer)

    def _closing(self, answer: web.Response) -> web.Response:
        if self.closing:
            answer.force_close()
        return answer
