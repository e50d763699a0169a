"""A second, slow reading of a callback's top level, written to be obviously right: the judge of the fast one.

As `ingest.lenient` documents its own: an object with an optional byte order mark; names are strings; a value is a
string, a word of `-+.0-9A-Za-z`, or anything between matching brackets, in which quotes delimit strings.
"""

import json
import re

from msgspec import Struct

_SPACE = b" \t\r\n"
_NO_WORD = re.compile(rb"[^-+.0-9A-Za-z]")
_IN_STRING = re.compile(rb'["\\]')
_IN_NESTED = re.compile(rb'["\[\]{}]')
_lax = json.JSONDecoder(strict=False)
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}
_QUOTE, _BACKSLASH, _COLON, _COMMA, _END = b'"\\:,}'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Member(Struct, frozen=True, kw_only=True):
    """A member of the top level: `name` as JSON reads it, its bytes where JSON cannot; and where its value stands."""

    name: str | bytes
    value_start: int
    end: int
    value: bytes


class _UnreadableError(Exception):
    """Raised when the grammar is broken."""


def read_top_level(body: bytes) -> list[Member] | None:
    """Return the members in their order, those with one name included; None if `body` is no object."""
    try:
        return _object(body)
    except (_UnreadableError, IndexError):
        return None


def _object(body: bytes) -> list[Member]:
    at = _after_space(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0)
    if body[at] != ord("{"):
        raise _UnreadableError
    at = _after_space(body, at + 1)
    members: list[Member] = []
    while body[at] != _END or members:
        name_start, at = at, _string_end(body, at)
        name = _name(body[name_start:at])
        at = _after_space(body, at)
        if body[at] != _COLON:
            raise _UnreadableError
        value_start = _after_space(body, at + 1)
        end = _value_end(body, value_start)
        members.append(Member(name=name, value_start=value_start, end=end, value=body[value_start:end]))
        at = _after_space(body, end)
        if body[at] == _END:
            break
        if body[at] != _COMMA:
            raise _UnreadableError
        at = _after_space(body, at + 1)
    if _after_space(body, at + 1) != len(body):
        raise _UnreadableError
    return members


def _after_space(body: bytes, at: int) -> int:
    while at < len(body) and body[at] in _SPACE:
        at += 1
    return at


def _next(wanted: re.Pattern[bytes], body: bytes, at: int) -> int:
    """Return where the next of some bytes stands."""
    found = wanted.search(body, at)
    if found is None:
        raise _UnreadableError
    return found.start()


def _string_end(body: bytes, at: int) -> int:
    if body[at] != _QUOTE:
        raise _UnreadableError
    at = _next(_IN_STRING, body, at + 1)
    while body[at] == _BACKSLASH:
        at = _next(_IN_STRING, body, at + 2)
    return at + 1


def _value_end(body: bytes, at: int) -> int:
    if body[at] == _QUOTE:
        return _string_end(body, at)
    if body[at] in _CLOSING:
        return _nested_end(body, at)
    end = _next(_NO_WORD, body, at)
    if end == at:
        raise _UnreadableError
    return end


def _nested_end(body: bytes, at: int) -> int:
    expected: list[int] = []
    while True:
        at = _next(_IN_NESTED, body, at)
        byte = body[at]
        if byte == _QUOTE:
            at = _string_end(body, at)
            continue
        if byte in _CLOSING:
            expected.append(_CLOSING[byte])
        elif expected.pop() != byte:
            raise _UnreadableError
        elif not expected:
            return at + 1
        at += 1


def _name(raw: bytes) -> str | bytes:
    try:
        text = raw.decode()
        return str(_lax.decode(text)) if "\\" in text else text[1:-1]
    except ValueError:
        return raw
