"""Reading the callback keys, and refusing them with a sentence that helps and gives nothing away."""

import json

import pytest
import structlog

from ingest import KeysError, parse_keys

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
    assert [(entry["event"], entry["sdk_app_id"], entry["number"]) for entry in logs] == [
        ("callback_key_too_short", 7, 2)
    ]
    assert "fifteen" not in repr(logs)
