"""Strict reading of a JSON object: what two readers could understand differently is refused.

The stock parsers keep the last of two members with one name, accept unpaired surrogates, or recurse until the
interpreter stops them. A callback that is signed once and read by several programs must mean the same to all.
"""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, Struct


class DuplicateNameError(ValueError):
    """Raised when an object has one name twice."""


def proves_unique_names(body: bytes, encoded: bytes) -> bool:
    """Say whether it is proven that no name stands twice in any object of `body`, which is valid JSON.

    `encoded` is compact JSON of what msgspec has made of `body`; its parts may stand in any order. It takes a fraction
    of the time of `refuse_duplicate_names`, which is to be asked where this says False: nothing is proven then.

    The proof: every member has a name, and a name is a string. A member that was dropped for another of the same name
    took at least one string with it, and never adds one. Where no string contains a quote, each has two quotes, its
    delimiters, before and after; so as many quotes after as before mean that nothing was dropped.
    """
    if b"\\" in body and (b'\\"' in body or b"\\u0022" in body):
        return False  # perhaps a quote inside a string
    return body.count(b'"') == encoded.count(b'"')


def refuse_duplicate_names(body: bytes) -> None:
    """Raise `DuplicateNameError` if any object of `body` has one name twice; ValueError if it is no JSON."""
    _exact.decode(body.decode())


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise DuplicateNameError


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Numbers stay text: Python refuses to convert integers of more than 4,300 digits.
_exact = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str, parse_constant=_refuse)


#: Deepest nesting that is read. The vendor's own callbacks nest 4 deep.
MAX_DEPTH = 64

# The closing quote is optional: a search that fails at the end of an unterminated string would be repeated from every
# quote in it, in quadratic time.
# Atomic: nothing is tried twice, an unterminated string included.
_STRING = re.compile(rb'"(?>(?:[^"\\]++|\\.)*)"?', re.DOTALL)
_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_members = msgspec.json.Decoder(dict[str, Raw])
_object = msgspec.json.Decoder(dict[str, Any])

#: Makes compact JSON with sorted names of what `msgspec.json.decode` made.
encode_sorted = msgspec.json.Encoder(order="sorted").encode


class NotStrictError(ValueError):
    """Raised when a body is not strict JSON; its text says why in a few words."""


class StrictObject(Struct, frozen=True, kw_only=True):
    """A JSON object that means the same to every reader, see `read_object`.

    `members` are its members as the bytes that were sent. `values` are the same, decoded; empty if one of them cannot
    be, such as the number 1e999. `event_data` is the member EventData as compact JSON with sorted names; None if it
    is no object or `values` is empty.
    """

    members: dict[str, Raw]
    values: dict[str, Any]
    event_data: bytes | None


def read_members(body: bytes) -> dict[str, Raw]:
    """Return the top-level members of `body`, each value as the bytes that were sent.

    Guaranteed of the whole body: UTF-8, RFC 8259 grammar, no unpaired surrogate, no name twice in one object,
    at most `MAX_DEPTH` levels. Raises `NotStrictError` otherwise.
    """
    return read_object(body).members


def read_object(body: bytes, *, members: dict[str, Raw] | None = None) -> StrictObject:
    """Do as `read_members`, and return what had to be decoded and encoded on the way, too.

    `members` is what a `msgspec.json.Decoder(dict[str, Raw])` makes of `body`, for a caller that has it already.
    """
    if nests_beyond(body, MAX_DEPTH):
        _refuse_other_than_utf_8(body)
        raise NotStrictError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        values = _object.decode(body)
    except ValueError:
        return _read_thoroughly(body)
    if members is None:
        members = _members.decode(body)
    event_data = values.get("EventData")
    if type(event_data) is dict:
        sorted_event_data = encode_sorted(event_data)
        encoded = encode_sorted(values | {"EventData": None}) + sorted_event_data
    else:
        sorted_event_data = None
        encoded = encode_sorted(values)
    if not proves_unique_names(body, encoded):
        _refuse_duplicate_names(body)
    return StrictObject(members=members, values=values, event_data=sorted_event_data)


def nests_beyond(body: bytes, depth: int) -> bool:
    """Say whether arrays and objects nest deeper than `depth`, in time linear in the body's size."""
    if body.count(b"{") + body.count(b"[") <= depth:
        return False
    if b'\\"' in body:
        body = _STRING.sub(b"", body)
    # No quote is escaped now. Two that have nothing between them can go; of what is left, every other part between
    # quotes is in a string.
    marks = body.translate(None, _NEITHER_BRACKETS_NOR_QUOTES).replace(b'""', b"")
    brackets = b"".join(marks.split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > depth


def _read_thoroughly(body: bytes) -> StrictObject:
    """Find out why `body` cannot be decoded. Not wrong is a number that is out of range: it can be passed on."""
    _refuse_other_than_utf_8(body)
    try:
        members = _members.decode(body)
    except msgspec.ValidationError as error:
        raise NotStrictError("not a JSON object") from error
    except msgspec.DecodeError as error:
        raise NotStrictError("malformed JSON") from error
    _refuse_duplicate_names(body)
    return StrictObject(members=members, values={}, event_data=None)


def _refuse_other_than_utf_8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise NotStrictError("not UTF-8") from error


def _refuse_duplicate_names(body: bytes) -> None:
    try:
        refuse_duplicate_names(body)
    except DuplicateNameError as error:
        raise NotStrictError("a name stands twice in one object") from error
    except ValueError as error:
        raise NotStrictError("malformed JSON") from error
