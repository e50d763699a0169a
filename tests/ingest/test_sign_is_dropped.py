"""Sign and ExpireTime go; everything else stays, byte for byte."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest import sign
from ingest.admission import DROPPED, admit, cut
from ingest.lenient import find_members
from schemas import read_members
from tests.ingest.callback_bodies import KEYS, SDK_APP_ID, sign_of
from tests.profiles import examples

NOW_US = 1_600_000_000_000_000
EXPIRE_TIME = 1_600_000_000
SIGNED = {"SdkAppId": SDK_APP_ID, "ExpireTime": EXPIRE_TIME, "Sign": sign(KEYS[SDK_APP_ID][0], EXPIRE_TIME)}

spaces = st.text(alphabet=" \t\r\n", max_size=2)
values = st.recursive(
    st.none() | st.booleans() | st.integers(min_value=-(2**60), max_value=2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
others = st.dictionaries(
    st.text(max_size=6).filter(lambda name: name not in SIGNED)
    | st.sampled_from(["EventType", "EventData", "Timestamp"]),
    values,
    max_size=5,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return a strict, authentic callback with members in any order, spelled in any way."""
    content: dict[str, Any] = draw(others) | SIGNED
    parts = []
    for name in draw(st.permutations(sorted(content))):
        quoted = json.dumps(name, ensure_ascii=draw(st.booleans()))
        if name in SIGNED and draw(st.booleans()):
            quoted = '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"'
        value = json.dumps(content[name], ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        parts.append(draw(spaces) + quoted + draw(spaces) + ":" + draw(spaces) + value + draw(spaces))
    return (draw(spaces) + "{" + ",".join(parts) + "}" + draw(spaces)).encode("utf-8", "surrogatepass")


def raw(body: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in read_members(body).items()}


@given(bodies())
@examples(quick=50, thorough=3000)
def test_what_was_kept_and_what_was_dropped_is_what_came(body: bytes) -> None:
    came = raw(body)
    admitted = admit(body, keys=KEYS, allow_unsigned=frozenset(), received_at_us=NOW_US)
    kept = raw(admitted.body)
    assert not DROPPED & set(kept)
    assert list(came.items()) == [(name, kept.get(name, came[name])) for name in came]
    assert kept | {name: came[name] for name in DROPPED} == came
    assert admitted.sdk_app_id == SDK_APP_ID


@given(bodies())
@examples(quick=50, thorough=3000)
def test_cutting_gives_the_same_members_as_assembling(body: bytes) -> None:
    spans = find_members(body)
    left = cut(body, [spans[name] for name in DROPPED])
    expected = {name: value for name, value in raw(body).items() if name not in DROPPED}
    assert raw(left) == expected


@given(bodies(), st.binary(min_size=1, max_size=6))
@examples(quick=50, thorough=2000)
def test_bytes_that_are_no_text_travel_as_they_came(body: bytes, junk: bytes) -> None:
    quoted = b'"\xff' + junk.replace(b"\\", b"").replace(b'"', b"") + b'"'
    mangled = body[: body.rindex(b"}")] + b',"Junk":' + quoted + body[body.rindex(b"}") :]
    admitted = admit(mangled, keys=KEYS, allow_unsigned=frozenset(), received_at_us=NOW_US)
    assert b',"Junk":' + quoted + b"}" in admitted.body.replace(b"{" + b'"Junk"', b'{,"Junk"')
    assert set(find_members(admitted.body)) == {"SdkAppId"}
    assert str(SIGNED["Sign"]).encode() not in admitted.body


def test_a_body_of_nothing_else_is_an_empty_object_with_its_app() -> None:
    body = json.dumps(SIGNED).encode()
    admitted = admit(body, keys=KEYS, allow_unsigned=frozenset(), received_at_us=NOW_US)
    assert json.loads(admitted.body) == {"SdkAppId": SDK_APP_ID}
    assert sign_of(body).encode() not in admitted.body
