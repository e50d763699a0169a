"""Reading the callback keys, and refusing them with a sentence that helps and gives nothing away."""

import json

import pytest
import structlog

from ingest import KeysError, parse_keys, sign
from ingest.admission import Credentials, authenticate
from ingest.keys import weak_keys

LONG = "a callback key of the tests"


def test_keys_are_read_by_app() -> None:
    assert parse_keys(json.dumps({"1400000001": [LONG, LONG + "2"], "0": [LONG]})) == {
        1400000001: (LONG, LONG + "2"),
        0: (LONG,),
    }


def test_keys_may_be_bytes_with_a_line_feed_at_the_end() -> None:
    assert parse_keys(b'{"7": ["%s"]}\n' % LONG.encode()) == {7: (LONG,)}


def test_a_key_of_64_characters_in_any_script_is_accepted() -> None:
    assert parse_keys(json.dumps({"7": ["键" * 64]})) == {7: ("键" * 64,)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("secret-key", "not JSON"),
        ("[]", "not JSON"),
        ('{"7": ["secret-key"], "7": ["secret-key"]}', "twice"),
        ("{}", "no SdkAppId"),
        ('{"app": ["secret-key"]}', "not a decimal number"),
        ('{"07": ["secret-key"]}', "not a decimal number"),
        ('{"-7": ["secret-key"]}', "not a decimal number"),
        ('{"\u0667": ["secret-key"]}', "not a decimal number"),
        ('{"7": "secret-key"}', "of 7 are not a list"),
        ('{"7": ["secret-key", 5]}', "of 7 are not a list"),
        ('{"7": null}', "of 7 are not a list"),
        ('{"7": []}', "of 7 is empty"),
        ('{"7": ["secret-key-that-is-good", ""]}', "key 2 of 7 has 0 characters"),
        ('{"7": ["' + "secret-key" * 7 + '"]}', "key 1 of 7 has 70 characters"),
    ],
)
def test_what_cannot_be_used_is_refused_without_quoting_a_key(text: str, says: str) -> None:
    with pytest.raises(KeysError, match=says) as caught:
        parse_keys(text)
    assert "secret-key" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_short_key_is_warned_about_without_showing_it() -> None:
    with structlog.testing.capture_logs() as logs:
        parse_keys(json.dumps({"7": [LONG, "fifteen letters"]}))
        parse_keys(json.dumps({"7": ["sixteen letters."]}))
    assert [(entry["event"], entry["sdk_app_id"], entry["number"]) for entry in logs] == [("callback_key_weak", 7, 2)]
    assert "fifteen" not in repr(logs)


@pytest.mark.parametrize(
    ("keys", "weak"),
    [
        ({7: (LONG, LONG + "2")}, [(7, 2)]),
        ({7: (LONG + "123456789",), 8: (LONG,)}, [(7, 1)]),
        ({7: (LONG, LONG + "2x", LONG + "x2"), 8: (LONG,)}, []),
        ({7: ("abababababababababab",)}, [(7, 1)]),
        ({7: ("1234567890123456", "123456789012345678")}, [(7, 2)]),
    ],
)
def test_keys_that_are_regular_or_lengthen_another_by_digits_are_weak(
    keys: dict[int, tuple[str, ...]], weak: list[tuple[int, int]]
) -> None:
    assert [(one.sdk_app_id, one.number) for one in weak_keys(keys)] == weak


def test_why_a_key_must_not_lengthen_another_by_digits() -> None:
    seen = sign(LONG + "7", 1588040109)
    forged = Credentials(sdk_app_id=b"1", expire_time=b"71588040109", sign=f'"{seen}"'.encode())
    keys = {1: (LONG, LONG + "7")}
    assert authenticate(forged, keys=keys, allow_unsigned=frozenset(), now_s=1588040109 + 10**9) == 1
    assert weak_keys(keys)
