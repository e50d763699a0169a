"""Bodies that two readers could understand differently are refused."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import NotStrictError, read_members
from schemas.strict_json import MAX_DEPTH


def nested(levels: int, *, brackets: str = "[]") -> bytes:
    """Return an object that nests `levels` deep, itself included."""
    opening, closing = ('{"a":', "}") if brackets == "{}" else ("[", "]")
    return f'{{"a":{opening * (levels - 1)}1{closing * (levels - 1)}}}'.encode()


def test_members_are_the_bytes_that_were_sent() -> None:
    assert read_members(b' {"a" : 1.50 ,"b":{ "c": "\\u0041" }}\n') == {
        "a": msgspec.Raw(b"1.50"),
        "b": msgspec.Raw(b'{ "c": "\\u0041" }'),
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed JSON"),
        (b"{", "malformed JSON"),
        (b"{} x", "malformed JSON"),
        (b"{}{}", "malformed JSON"),
        (b"{}\x00", "malformed JSON"),
        (b"\xef\xbb\xbf{}", "malformed JSON"),
        (b'{"a":1,}', "malformed JSON"),
        (b"{'a':1}", "malformed JSON"),
        (b'{"a":"\t"}', "malformed JSON"),
        (b'{"a":"\\x41"}', "malformed JSON"),
        (b'{"a":"\\u00"}', "malformed JSON"),
        (b'{"a":NaN}', "malformed JSON"),
        (b'{"a":[Infinity]}', "malformed JSON"),
        (b'{"a":-Infinity}', "malformed JSON"),
        (b'{"a":01}', "malformed JSON"),
        (b'{"a":+1}', "malformed JSON"),
        (b'{"a":1.}', "malformed JSON"),
        (b'{"a":.5}', "malformed JSON"),
        (b'{"a":tru}', "malformed JSON"),
        (b"[]", "not a JSON object"),
        (b"1", "not a JSON object"),
        (b'"{}"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (rb'{"a":"\ud800"}', "malformed JSON"),
        (rb'{"a":{"b":["\udc00"]}}', "malformed JSON"),
        (rb'{"a":"\ud800\u0041"}', "malformed JSON"),
        (rb'{"a":"\udc00\ud800"}', "malformed JSON"),
        (rb'{"\ud800":1}', "malformed JSON"),
        (rb'{"a":{"\ud800":1}}', "malformed JSON"),
        (b'{"a":1,"a":1}', "a name stands twice in one object"),
        (b'{"a":1,"b":{"c":1,"c":2}}', "a name stands twice in one object"),
        (b'{"a":[[{"c":1,"c":2}]]}', "a name stands twice in one object"),
        (rb'{"a":1,"\u0061":2}', "a name stands twice in one object"),
        (rb'{"a":{"\u00e9":1,"' + "\u00e9".encode() + b'":2}}', "a name stands twice in one object"),
        (rb'{"a":{"/":1,"\/":2}}', "a name stands twice in one object"),
    ],
)
def test_what_is_ambiguous_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(NotStrictError, match=f"^{reason}$"):
        read_members(body)


@pytest.mark.parametrize(
    "body",
    [
        b" {}\r\n\t",
        rb'{"a":"\ud83c\udfa5"}',
        b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}',
        b'{"a":"A","A":"a"}',
        b'{"a":1e999,"b":-0,"c":' + b"9" * 5000 + b',"d":1e-999}',
        b'{"":"\\u0000"}',
        b'{"a":"]]]]}}}}"}',
    ],
)
def test_what_is_unusual_but_clear_is_read(body: bytes) -> None:
    assert set(read_members(body)) == set(json.loads(body.replace(b"9" * 5000, b"9")))


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_64_levels_are_read_and_65_are_not(brackets: str) -> None:
    assert MAX_DEPTH == 64
    assert set(read_members(nested(64, brackets=brackets))) == {"a"}
    with pytest.raises(NotStrictError, match=r"^nested deeper than 64 levels$"):
        read_members(nested(65, brackets=brackets))


class TwiceError(Exception):
    """A name stands twice."""


def by_the_standard_library(body: bytes) -> dict[str, Any] | None:
    """Return what the standard library reads, made strict; None for what is refused."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) != len(found):
            raise TwiceError
        return dict(found)

    def constant(name: str) -> None:
        raise TwiceError

    try:
        value = json.loads(body.decode(), object_pairs_hook=pairs, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, TwiceError):
        return None
    return value if isinstance(value, dict) else None


tokens = st.lists(
    st.sampled_from(
        [
            *(
                b"{",
                b"}",
                b"[",
                b"]",
                b":",
                b",",
                b'"',
                b"a",
                b'"a"',
                b'"b"',
                b'"a":',
                b'{"a":',
                b"1",
                b"-",
                b"0",
                b".5",
                b"e9",
            ),
            *(
                b"true",
                b"null",
                b"NaN",
                b" ",
                b"\n",
                b"\\",
                rb"\u0061",
                rb'"\u0061":',
                rb'"\ud800"',
                b"\xff",
                b"\xef\xbb\xbf",
            ),
        ]
    ),
    max_size=20,
).map(b"".join)


@given(body=tokens | tokens.map(lambda inner: b'{"a":' + inner + b"}") | st.binary(max_size=30))
@example(body=rb'{"a":1,"\u0061":2}')
def test_it_reads_what_the_standard_library_reads_and_nothing_else(body: bytes) -> None:
    expected = by_the_standard_library(body)
    if expected is None:
        with pytest.raises(NotStrictError):
            read_members(body)
    else:
        assert {name: json.loads(bytes(raw)) for name, raw in read_members(body).items()} == expected
