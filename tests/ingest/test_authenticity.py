"""Authenticity: what exactly is signed, and what is not accepted as signed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import sign
from ingest.admission import Credentials, authenticate
from ingest.refusals import Refusal, RefusedError

APP = 1400000001
VENDOR_KEY = "Xz4ZgayTr7rMgWQrH"
EXPIRE_TIME = 1588040109
VENDOR_SIGN = "a2dabb362a9b811c0e26953a6276a41c"
NOW_S = float(EXPIRE_TIME)

some_keys = st.text(min_size=1, max_size=64, alphabet=st.characters(codec="utf-8"))
keys_of_an_app = st.lists(some_keys, min_size=1, max_size=4)
expire_times = st.integers(min_value=0, max_value=2**62)


def verdict(
    *,
    app: bytes | None = b"1400000001",
    expire_time: bytes | None = b"1588040109",
    sign: Any = VENDOR_SIGN,
    keys: tuple[str, ...] = (VENDOR_KEY,),
    allow_unsigned: frozenset[int] = frozenset(),
    now_s: float = NOW_S,
) -> int | Refusal:
    """Return the SdkAppId of what is accepted, else the reason."""
    credentials = Credentials(
        sdk_app_id=app, expire_time=expire_time, sign=None if sign is None else json.dumps(sign).encode()
    )
    try:
        return authenticate(credentials, keys={APP: keys}, allow_unsigned=allow_unsigned, now_s=now_s)
    except RefusedError as error:
        return error.refusal


def test_the_vendors_example_is_authentic() -> None:
    assert sign(VENDOR_KEY, EXPIRE_TIME) == VENDOR_SIGN
    assert verdict() == APP


@pytest.mark.parametrize(
    "expire_time",
    [b"1588040109.0", b"1588040109e0", b"1.588040109e9", b"true", b'"1588040109"', b"01588040109", b"-1588040109",
     b"+1588040109", b" 1588040109", b"null", b"[1588040109]", b"1" * 20, b"1" * 5000, b"", b"NaN"],
)  # fmt: skip
def test_expire_time_is_a_true_integer(expire_time: bytes) -> None:
    assert verdict(expire_time=expire_time) is Refusal.MALFORMED_EXPIRE_TIME


@pytest.mark.parametrize(
    "given_sign",
    [VENDOR_SIGN.upper(), VENDOR_SIGN[:-1], VENDOR_SIGN + "0", "", " " * 32, "é" * 32, 7, True, {}, [VENDOR_SIGN]],
)
def test_a_sign_is_32_lower_case_hexadecimal_digits(given_sign: Any) -> None:
    assert verdict(sign=given_sign) is Refusal.MALFORMED_SIGN


def test_a_null_is_no_sign() -> None:
    credentials = Credentials(sdk_app_id=b"0", expire_time=b"null", sign=b"null")
    with pytest.raises(RefusedError):
        authenticate(credentials, keys={}, allow_unsigned=frozenset({0}), now_s=NOW_S)


@pytest.mark.parametrize(
    ("late_s", "expected"),
    [(-(10**6), APP), (0, APP), (299, APP), (300, APP), (300.5, Refusal.EXPIRED), (10**6, Refusal.EXPIRED)],
)
def test_clocks_may_differ_by_five_minutes(late_s: float, expected: int | Refusal) -> None:
    assert verdict(now_s=EXPIRE_TIME + late_s) == expected


def test_a_wrong_sign_is_wrong_even_if_it_is_late() -> None:
    assert verdict(sign="0" * 32, now_s=NOW_S + 10**6) is Refusal.WRONG_SIGN


@pytest.mark.parametrize(("expire_time", "given_sign"), [(None, None), (b"1588040109", None), (None, VENDOR_SIGN)])
def test_half_a_signature_is_none(expire_time: bytes | None, given_sign: str | None) -> None:
    assert verdict(expire_time=expire_time, sign=given_sign) is Refusal.MISSING_SIGN


@pytest.mark.parametrize("app", [None, b"0", b"2", b"1400000001.0", b'"1400000001"', b"null", b"-1", b"1" * 5000])
def test_an_app_without_keys_is_unknown_signed_or_not(app: bytes | None) -> None:
    assert verdict(app=app) is Refusal.UNKNOWN_APP
    assert verdict(app=app, sign=None, expire_time=None) is Refusal.UNKNOWN_APP


def test_unsigned_callbacks_are_accepted_of_allowed_apps_alone() -> None:
    allowed = frozenset({0, 7})
    assert verdict(app=b"7", sign=None, expire_time=None, allow_unsigned=allowed) == 7
    assert verdict(app=None, sign=None, expire_time=None, allow_unsigned=allowed) == 0
    assert verdict(app=b"8", sign=None, expire_time=None, allow_unsigned=allowed) is Refusal.UNKNOWN_APP
    assert verdict(app=b"7", allow_unsigned=allowed) is Refusal.UNKNOWN_APP
    assert verdict(app=b"7", sign=None, allow_unsigned=allowed) is Refusal.UNKNOWN_APP
    assert verdict(sign=None, expire_time=None, allow_unsigned=allowed) is Refusal.MISSING_SIGN


def test_an_app_that_got_keys_meanwhile_must_sign() -> None:
    assert verdict(sign=None, expire_time=None, allow_unsigned=frozenset({APP})) is Refusal.MISSING_SIGN
    assert verdict(allow_unsigned=frozenset({APP})) == APP


@given(keys=keys_of_an_app, expire_time=expire_times, data=st.data())
def test_every_key_of_an_app_signs(keys: list[str], expire_time: int, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(keys))
    given_sign = sign(key, expire_time)
    assert verdict(keys=tuple(keys), expire_time=b"%d" % expire_time, sign=given_sign, now_s=expire_time) == APP


@given(keys=keys_of_an_app, other=some_keys, expire_time=expire_times)
def test_no_other_key_signs(keys: list[str], other: str, expire_time: int) -> None:
    given_sign = sign(other, expire_time)
    genuine = any(sign(key, expire_time) == given_sign for key in keys)
    expected = APP if genuine else Refusal.WRONG_SIGN
    assert verdict(keys=tuple(keys), expire_time=b"%d" % expire_time, sign=given_sign, now_s=expire_time) == expected


@given(st.binary(max_size=60), st.binary(max_size=30), st.binary(max_size=40))
def test_any_bytes_get_a_verdict(app: bytes, expire_time: bytes, given_sign: bytes) -> None:
    credentials = Credentials(sdk_app_id=app, expire_time=expire_time, sign=given_sign)
    with pytest.raises(RefusedError):
        authenticate(credentials, keys={APP: (VENDOR_KEY,)}, allow_unsigned=frozenset(), now_s=NOW_S)
