r"""Around a hole in aiohttp's parser: the twelve bytes `CONNECT \r\n\r\n` pass as a request without a target.

Its `path` is None then, and its `url` is None or that of the request before it. The former ends the task of its
connection: nobody answers, and nobody closes it, ever. Seen in aiohttp 3.14.5: `_on_status_complete` in
https://github.com/aio-libs/aiohttp/blob/v3.14.5/aiohttp/_http_parser.pyx leaves both as they are if there is no target.
"""

from aiohttp.http_parser import RawRequestMessage
from yarl import URL

_NOWHERE = URL()


def with_target(message: RawRequestMessage) -> RawRequestMessage:
    """Return `message`, or where it has no target, one whose empty target leads nowhere: it is answered 404."""
    # The parser's types promise that there is one.
    if getattr(message, "path", None) is None:
        return message._replace(path="", url=_NOWHERE)
    return message
