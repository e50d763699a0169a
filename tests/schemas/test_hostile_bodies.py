"""Bodies made to hurt: reading them takes time that grows with their size alone."""

import pytest

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
    assert not nests_beyond(b"[" + b"[]," * 100 + b"1]", 2)
    assert nests_beyond(b"[[" + b"[]," * 100 + b"1]]", 2)
