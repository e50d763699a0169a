"""Taking Sign and ExpireTime out of a body: together they are a token that signs any other body.

Every other member goes on, those that nobody knows included, with the bytes of its value as they came.
"""

import re
from collections.abc import Iterable

import msgspec

from ingest.lenient import Span

#: What never travels further than this package.
DROPPED = frozenset({"Sign", "ExpireTime"})

_SPACE = b" \t\r\n"
_COMMA = re.compile(rb"[ \t\r\n]*+,")


def without_dropped(members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return the members of a strict body that travel, in their order. `msgspec.json.encode` makes a body of them."""
    travelling = members.copy()
    for name in DROPPED:
        travelling.pop(name, None)
    return travelling


def cut(body: bytes, spans: Iterable[Span]) -> bytes:
    """Return `body` without the members at `spans` and one comma for each. All other members stay byte for byte."""
    for span in sorted(spans, key=lambda span: span.start, reverse=True):
        before, after = body[: span.start].rstrip(_SPACE), body[span.end :]
        # The last member of several has a comma in front; the first one of an object has not.
        body = before[:-1] + after if before.endswith(b",") else before + _COMMA.sub(b"", after, count=1)
    return body
