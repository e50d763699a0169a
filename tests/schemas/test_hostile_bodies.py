"""Bodies made to hurt: reading them takes time that grows with their size alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import NotStrictError, read_members
from schemas.strict_json import nests_beyond


@pytest.mark.parametrize("unit", [b'\\"', b"[]", b"[", b"{", b'""', b'"', b"[[]", b"\\"])
def test_a_megabyte_of_brackets_and_quotes_is_refused_in_linear_time(unit: bytes) -> None:
    # In quadratic time each of these would take minutes: the suite's own time limit is the assertion on time.
    for start in (b"[" * 100, b"[" * 100 + b'"', b'{"a":'):
        with pytest.raises(NotStrictError):
            read_members(start + unit * (1_000_000 // len(unit)))


def test_brackets_in_strings_do_not_nest() -> None:
    assert not nests_beyond(b'["' + b"[" * 100 + b'\\"' + b"[" * 100 + b'"]', 1)
    assert nests_beyond(b"[[" + b'"",' * 100 + b"1]]", 1)
    assert not nests_beyond(b'["' + b"[" * 100 + b'", "' + b"]" * 100 + b'"]', 1)
    assert not nests_beyond(b"[" + b"[]," * 100 + b"1]", 2)
    assert nests_beyond(b"[[" + b"[]," * 100 + b"1]]", 2)


_pieces = st.sampled_from(["[", "]", "{", "}", '"', '"[[["', '"]]"', '"\\\\"', '"\\"]"', ",", "1", ":", "\\"])


@given(pieces=st.lists(_pieces, max_size=40), depth=st.integers(0, 5))
def test_brackets_are_counted_outside_of_strings_whether_quotes_are_escaped_or_not(
    pieces: list[str], depth: int
) -> None:
    deepest = level = 0
    is_string = is_escaped = False
    for character in "".join(pieces):
        if is_string:
            is_string = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            is_string = True
        else:
            level += (character in "[{") - (character in "]}")
            deepest = max(deepest, level)
    assert nests_beyond("".join(pieces).encode(), depth) == (deepest > depth)
