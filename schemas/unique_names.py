"""Whether a name stands twice in one object: no stock parser says so, they keep the last of the two."""

import json
from typing import Any, NoReturn


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
