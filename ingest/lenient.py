"""Finding the members that decide about authenticity in a body that strict parsing refuses.

What nobody understands is still kept if it is authentic: so this reads text that is not UTF-8, has unpaired
surrogates or invalid escapes, names twice, or 100,000 levels of nesting. It looks at the grammar of the top level
only; below, it matches brackets and quotes. No recursion; the work is linear, and runs of plain members, of leaves
and of brackets are passed over inside the regular expressions, as Python's steps are what a hostile body costs.
"""

import re

from msgspec import Struct

from ingest.refusals import Refusal, RefusedError

#: The members that are looked for.
NAMES = frozenset({"SdkAppId", "ExpireTime", "Sign"})


class Span(Struct, frozen=True, kw_only=True):
    """Where a member stands: its name begins at `start`, its value at `value_start`; both end at `end`."""

    start: int
    value_start: int
    end: int


# Possessive repeats of single characters, and atomic groups (?>...) around everything else, so that nothing is tried
# twice. A possessive repeat of a whole group goes wrong up to Python 3.11.4, which Debian 12 has not left behind:
# https://github.com/python/cpython/issues/106052
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?>(?:[^"\\]++|\\.)*)"'
_WORD = rb"[-+.0-9A-Za-z]++"  # a number, a literal, or what a careless sender writes instead


def _leaves(levels: int) -> bytes:
    """Return a pattern for anything without an unmatched bracket, in which arrays and objects nest `levels` deep."""
    inner = _leaves(levels - 1) if levels else b""
    nested = rb"|\[" + inner + rb"\]|\{" + inner + rb"\}" if levels else b""
    return rb'(?>(?:[^\[\]{}"]++|' + _STRING + nested + rb")*)"


def _spelled(name: str) -> bytes:
    """Return a pattern for every way to write `name` in JSON: each letter as itself or by its number."""
    return b"".join(rb"(?:%b|\\u(?i:%04x))" % (letter.encode(), ord(letter)) for letter in name)


_LEAVES = _leaves(4)
_VALUE = rb"(?:" + _STRING + rb"|" + _WORD + rb"|\[" + _LEAVES + rb"\]|\{" + _LEAVES + rb"\})"
_NAME = rb'"(?:' + b"|".join(rb"(?P<%b>%b)" % (name.encode(), _spelled(name)) for name in NAMES) + rb')"'
_OTHER_NAME = rb'(?!"(?:' + b"|".join(map(_spelled, NAMES)) + rb')")' + _STRING
_COLON = _SPACE + rb":" + _SPACE

_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?" + _SPACE + rb"\{" + _SPACE + rb"(\})?")
_OTHER_MEMBERS = re.compile(rb"(?>(?:" + _SPACE + _OTHER_NAME + _COLON + _VALUE + _SPACE + rb",)*)", re.DOTALL)
_MEMBER_NAME = re.compile(_SPACE + rb"(?:" + _NAME + rb"|" + _STRING + rb")" + _COLON, re.DOTALL)
_MEMBER_VALUE = re.compile(rb"[\[{]|" + _STRING + rb"|" + _WORD, re.DOTALL)
_SEPARATOR = re.compile(_SPACE + rb"(?:(,)|\})")
_END = re.compile(_SPACE + rb"\Z")
_STEP = re.compile(_LEAVES + rb"([\[{]++|[\]}]++|)", re.DOTALL)
_OPENING = (b"[", b"{")
_CLOSING = bytes.maketrans(b"[{", b"]}")


def find_members(body: bytes) -> dict[str, Span]:
    """Return where those members of the JSON object `body` stand whose unescaped names are in `NAMES`.

    Raises `RefusedError`: `NOT_AN_OBJECT` if `body` is no object, or the grammar of its top level is broken;
    `AMBIGUOUS` if one of `NAMES` stands there more than once.
    """
    begin = _BEGIN.match(body)
    if begin is None:
        raise RefusedError(Refusal.NOT_AN_OBJECT)
    found: dict[str, Span] = {}
    position, ended = begin.end(), begin[1] is not None
    while not ended:
        others = _OTHER_MEMBERS.match(body, position)
        name = _MEMBER_NAME.match(body, others.end() if others else position)
        value = _MEMBER_VALUE.match(body, name.end()) if name else None
        if name is None or value is None:
            raise RefusedError(Refusal.NOT_AN_OBJECT)
        end = _end_of_nested(body, value.start()) if value[0] in _OPENING else value.end()
        if name.lastgroup in found:
            raise RefusedError(Refusal.AMBIGUOUS)
        if name.lastgroup is not None:
            found[name.lastgroup] = Span(start=name.start(), value_start=value.start(), end=end)
        separator = _SEPARATOR.match(body, end)
        if separator is None:
            raise RefusedError(Refusal.NOT_AN_OBJECT)
        position, ended = separator.end(), separator[1] is None
    if not _END.match(body, position):
        raise RefusedError(Refusal.NOT_AN_OBJECT)
    return found


def _end_of_nested(body: bytes, start: int) -> int:
    """Return where the array or object ends that begins at `start`."""
    open_brackets = bytearray(body[start : start + 1])
    for step in _STEP.finditer(body, start + 1):
        run = step[1]
        if not run:
            break
        if run[:1] in _OPENING:
            open_brackets += run
            continue
        closed = run[: len(open_brackets)]
        if open_brackets[-len(closed) :].translate(_CLOSING)[::-1] != closed:
            break
        del open_brackets[-len(closed) :]
        if not open_brackets:
            return step.start(1) + len(closed)
    raise RefusedError(Refusal.NOT_AN_OBJECT)
