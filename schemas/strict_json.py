"""Strict reading of a JSON object: what two readers could understand differently is refused.

The stock parsers keep the last of two members with one name, accept unpaired surrogates, or recurse until the
interpreter stops them. A callback that is signed once and read by several programs must mean the same to all.
"""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

import msgspec

#: Deepest nesting that is read. The vendor's own callbacks nest 4 deep.
MAX_DEPTH = 64

# The closing quote is optional: a search that fails at the end of an unterminated string would be repeated from every
# quote in it, in quadratic time.
# Atomic: nothing is tried twice, an unterminated string included.
_STRING = re.compile(rb'"(?>(?:[^"\\]++|\\.)*)"?', re.DOTALL)
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotStrictError(ValueError):
    """Raised when a body is not strict JSON; its text says why in a few words."""


def read_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the top-level members of `body`, each value as the bytes that were sent.

    Guaranteed of the whole body: UTF-8, RFC 8259 grammar, no unpaired surrogate, no name twice in one object,
    at most `MAX_DEPTH` levels. Raises `NotStrictError` otherwise.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise NotStrictError("not UTF-8") from error
    if nests_beyond(body, MAX_DEPTH):
        raise NotStrictError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        members = _members.decode(body)
    except msgspec.ValidationError as error:
        raise NotStrictError("not a JSON object") from error
    except msgspec.DecodeError as error:
        raise NotStrictError("malformed JSON") from error
    refuse_duplicate_names(body)
    return members


def nests_beyond(body: bytes, depth: int) -> bool:
    """Say whether arrays and objects nest deeper than `depth`, in time linear in the body's size."""
    if body.count(b"{") + body.count(b"[") <= depth:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > depth


def refuse_duplicate_names(body: bytes) -> None:
    """Raise `NotStrictError` if any object of `body` (valid JSON) has one name twice."""
    try:
        # Numbers stay text: Python refuses to convert integers of more than 4,300 digits.
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str, parse_constant=_refuse)
    except NotStrictError:
        raise
    except ValueError as error:
        raise NotStrictError("malformed JSON") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise NotStrictError("a name stands twice in one object")


def _refuse(constant: str) -> NoReturn:
    raise NotStrictError(f"{constant} is not JSON")
