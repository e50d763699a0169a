"""That no name stands twice is proven by counting quotes, and never wrongly."""

from typing import Any

import msgspec
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from schemas.strict_json import DuplicateNameError, proves_unique_names, refuse_duplicate_names
from tests.profiles import examples

space = st.text(alphabet=" \t\r\n", max_size=2)
characters = st.sampled_from(['\\"', "\\u0022", "\\\\", "\\/", "\\n", "\\u00e9", "\\u0061", ":", "://", ",", "{", "}"])
characters |= st.sampled_from(["a", "b", "\u8bfe", "[", "]", " ", "\u2028", "\x7f", "\\uD83C\\uDFA5", "\\u005c", "\\b"])
strings = st.lists(characters, max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
names = st.sampled_from(['""', '"a"', '"a"', '"\\u0061"', '"b"', '":"', '"\\""', '"\\u0022"', '"\\\\"']) | strings
scalars = strings | st.sampled_from(["0", "-0", "1.5", "1e3", "1E+2", "18446744073709551616", "true", "null", "5e-324"])


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    """Return a JSON text, with any white space, any escapes, and names that stand twice now and then."""
    kind = draw(st.sampled_from(["scalar", "array", "object", "object"])) if depth else "scalar"
    if kind == "scalar":
        return draw(scalars)
    inner = texts(depth=depth - 1)
    if kind == "array":
        return "[" + ",".join(draw(st.lists(inner, max_size=3))) + "]"
    members = draw(st.lists(st.tuples(space, names, space, space, inner, space), max_size=4))
    return "{" + ",".join(f"{a}{name}{b}:{c}{value}{d}" for a, name, b, c, value, d in members) + "}"


def is_unique(body: bytes) -> bool:
    try:
        refuse_duplicate_names(body)
    except DuplicateNameError:
        return False
    return True


def is_proven(body: bytes) -> bool:
    return proves_unique_names(body, msgspec.json.encode(msgspec.json.decode(body)))


@given(text=texts())
@examples(quick=50, thorough=2500)
@example(text='{"a":1,"a":2}')
@example(text='{"a":"\\u0022\\u0022","a":1}')
@example(text='{"a":{"b":"\\"","b":1},"c":"\\""}')
@example(text='{"a\\\\":1,"a\\\\":":"}')
@example(text='[{"":{}},{"":{"":1,"" :2}}]')
def test_what_is_proven_is_so(text: str) -> None:
    body = text.encode()
    proven, unique = is_proven(body), is_unique(body)
    event(f"proven {proven}, unique {unique}")
    assert unique or not proven
    # And nothing else keeps it from being proven than a quote inside a string.
    assert proven or not unique or '\\"' in text or "\\u0022" in text


@pytest.mark.parametrize(
    ("body", "proven"),
    [
        (b"{}", True),
        (b'{"a":{"b":"c"},"b":{"b":"c"}}', True),
        (b'{"url":"https:\\/\\/a\\/b","name":"\\u8bfe\\n"}', True),
        (b'{"said":"\\"yes\\""}', False),
        (b'{"said":"\\u0022"}', False),
        (b'{"path":"c:\\\\"}', False),
        (b'{"a":1,"a":1}', False),
        (b'{"a":1,"\\u0061":1}', False),
        (b'{"a":[{"b":{"c":1,"c":1}}]}', False),
    ],
)
def test_examples(body: bytes, proven: bool) -> None:
    assert is_proven(body) is proven


@pytest.mark.parametrize("body", [b"NaN", b'{"a":Infinity}', b"{", b"[1,]"])
def test_what_is_no_json_is_no_duplicate(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        refuse_duplicate_names(body)
    assert not isinstance(raised.value, DuplicateNameError)


def test_numbers_of_any_size_are_looked_past() -> None:
    digits: Any = b"9" * 10_000
    refuse_duplicate_names(b'{"a":%b,"b":1e999}' % digits)
