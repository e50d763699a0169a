"""Lenient reading against the reading of the standard library, and against bodies made to hurt."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.lenient import NAMES, find_members
from ingest.refusals import Refusal, RefusedError
from tests.profiles import examples

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["Sign", "a", "]}"]), inner, max_size=3)
    ),
    max_leaves=12,
)
members = st.lists(st.tuples(st.sampled_from([*sorted(NAMES), "EventData", "sign", "", '"', "\\"]), values), max_size=6)


def found(body: bytes) -> dict[str, bytes] | Refusal:
    """Return the values that are found, as they stand; or why there are none."""
    try:
        return {name: body[span.value_start : span.end] for name, span in find_members(body).items()}
    except RefusedError as error:
        return error.refusal


def reference(body: bytes) -> dict[str, Any] | Refusal:
    """Return the same by the standard library, decoded."""
    pairs = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    ours = [(name, value) for name, value in pairs if name in NAMES]
    return Refusal.AMBIGUOUS if len(dict(ours)) < len(ours) else dict(ours)


def written(content: list[tuple[str, Any]], draw: Any) -> bytes:
    """Return an object as text, with random spaces and spellings of names."""
    parts = []
    for name, value in content:
        spelled = json.dumps(name)
        if draw(st.booleans()):
            spelled = '"' + "".join(f"\\u{ord(c):04{draw(st.sampled_from('xX'))}}" for c in name) + '"'
        space = draw(st.sampled_from(["", " ", "\n\t\r "]))
        parts.append(f"{space}{spelled}{space}:{space}{json.dumps(value, ensure_ascii=draw(st.booleans()))}{space}")
    return ("{" + ",".join(parts) + "}").encode("utf-8", "surrogatepass")


@given(members, st.data())
@examples(quick=50, thorough=3000)
def test_it_finds_what_the_standard_library_finds(content: list[tuple[str, Any]], data: st.DataObject) -> None:
    body = written(content, data.draw)
    expected, got = reference(body), found(body)
    if isinstance(expected, Refusal) or isinstance(got, Refusal):
        assert got == expected
    else:
        decoded = {name: json.loads(value, object_pairs_hook=lambda pairs: pairs) for name, value in got.items()}
        assert repr(decoded) == repr({name: expected[name] for name in decoded})  # repr: NaN equals itself
        assert set(decoded) == set(expected)


@given(st.binary(max_size=200))
@example(b'{"a":{}')
@example(b'{"Sign":"\\')
@settings(deadline=None)
def test_any_bytes_are_an_object_or_not(body: bytes) -> None:
    for candidate in (body, b'{"a":' + body + b"}", b'{"' + body + b'":1}'):
        result = found(candidate)
        assert isinstance(result, dict) or result in {Refusal.NOT_AN_OBJECT, Refusal.AMBIGUOUS}


@given(st.text(alphabet='[]{}",:\\aS 1', max_size=40))
@examples(quick=50, thorough=5000)
def test_what_the_standard_library_reads_as_an_object_is_one(text: str) -> None:
    body = text.encode()
    try:
        pairs = json.loads(body, object_pairs_hook=lambda pairs: ("object", pairs), strict=False)
    except ValueError:
        return
    is_object = isinstance(pairs, tuple)
    assert (found(body) is not Refusal.NOT_AN_OBJECT) == is_object


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"}", b"[]", b"1", b'"{}"', b"{}{}", b"{}x", b"{,}", "{}".encode("utf-16"), b'{"a":1}\0',
     b'{"a"}', b'{"a":}', b'{"a":1,}', b'{"a":1 "b":2}', b'{"a" 1}', b"{a:1}", b"{'a':1}", b'{"a":[1],}',
     b'{"a":1', b'{"a":[', b'{"a":"', b'{"a":"\\"}', b'{"a":[}', b'{"a":[}]', b'{"a":{]}', b'{"a":[{]}}', b'{"a":[]]}',
     b'{"a":[[[[[[[[]]]]]]]}', b'{"a":[[[[[[[[]]]]]]]}]}', b'{"Sign":"x","a":[}', b'{"Sign":[[}}'],
)  # fmt: skip
def test_broken_grammar_at_the_top_is_no_object(body: bytes) -> None:
    assert found(body) is Refusal.NOT_AN_OBJECT


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"Sign":"\xff"}', {"Sign": b'"\xff"'}),
        (b'{"\xff":1,"Sign":2}', {"Sign": b"2"}),
        (b'{"\\ud800":1,"Sign":2}', {"Sign": b"2"}),
        (b'{"\\q":1,"Sign":2}', {"Sign": b"2"}),
        (b'{"a":[1 2 "\\q" nonsense],"Sign":2}', {"Sign": b"2"}),
        (b'{"a":"]}","Sign":2}', {"Sign": b"2"}),
        (b'{"a":["]}\\"",{"Sign":3}],"Sign":2}', {"Sign": b"2"}),
        (b'{"a":1,"a":2,"Sign":2}', {"Sign": b"2"}),
        (b'{"Sign":[[[[[["]"]]]]]], "a":1}', {"Sign": b'[[[[[["]"]]]]]]'}),
        (b'{"\\u0053ig\\u006E":1,"\\u0053dkAppId":2}', {"Sign": b"1", "SdkAppId": b"2"}),
        (b'\xef\xbb\xbf {"Sign" : 1 } \n', {"Sign": b"1"}),
        (b'{"a":NaN,"Sign":-1.5e+7}', {"Sign": b"-1.5e+7"}),
        (b'{"SIGN":1,"Sign ":2,"\\u0073ign":3}', {}),
    ],
)
def test_what_strict_reading_refuses_is_read_all_the_same(body: bytes, expected: dict[str, bytes]) -> None:
    assert found(body) == expected


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_name_that_stands_twice_is_ambiguous_however_it_is_spelled(name: str) -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in name)
    for other in (name, escaped, name[:2] + escaped[12:]):
        for between in ("", '"a":[[[[[[[]]]]]]],', '"b":{"Sign":1},'):
            body = f'{{"{name}":1,{between}"{other}":1}}'.encode()
            assert found(body) is Refusal.AMBIGUOUS


@pytest.mark.parametrize(
    ("unit", "closing"),
    [(b"[", b"]"), (b"[{", b"}]"), (b'{"a":', b"}"), (b"[[],", b",[]]"), (b"[0,", b"]"), (b'["]",', b"]"),
     (b"[\xff", b"\xff]")],
)  # fmt: skip
def test_nesting_of_any_depth_is_matched_without_recursion(unit: bytes, closing: bytes) -> None:
    deep = unit * 100_000 + closing * 100_000
    assert found(b'{"Sign":1,"a":' + deep + b',"SdkAppId":2}') == {"Sign": b"1", "SdkAppId": b"2"}
    assert found(b'{"Sign":1,"a":' + deep[:-1] + b"}") is Refusal.NOT_AN_OBJECT
    assert found(b'{"Sign":1,"a":' + deep[len(unit) :] + b"}") is Refusal.NOT_AN_OBJECT


@pytest.mark.parametrize(
    "unit",
    [
        b"[",
        b'"',
        b'\\"',
        b'"":0,',
        b'"":[],',
        b'"":[[[[[[]]]]]],',
        b'"\\u0053":0,',
        b"[[]",
        b'[""',
        b'"\\',
        b"[{]",
        b"{",
        b'{"":',
    ],
)
def test_a_megabyte_made_to_hurt_takes_no_quadratic_time(unit: bytes) -> None:
    # In quadratic time each of these would take minutes: the suite's own time limit is the assertion on time.
    hostile = unit * (1_000_000 // len(unit))
    for body in (b"{" + hostile, b'{"a":[' + hostile, b"{" + hostile + b'"a":1}', b'{"' + hostile):
        result = found(body)
        assert result is Refusal.NOT_AN_OBJECT or result == {}
