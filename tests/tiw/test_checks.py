"""What `tiw doctor` finds in the callback keys and in the installation."""

import json
from pathlib import Path

import pytest

from ingest import generated_keys
from tiw.checks import Check, check_event_loop, check_keys
from tiw.settings import read_settings

APP = 1400000001
KEY = "k" * 32


def found(folder: Path, **environ: str) -> Check:
    return check_keys(read_settings({"TIW_DATA_DIR": str(folder), **environ}, is_terminal=False))


def test_good_keys_are_counted_and_not_shown(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY, KEY[:-1]]}))
    assert (check.ok, check.detail) == (True, f"{APP}: 2 (from TIW_CALLBACK_KEYS)")


def test_a_short_key_is_not_well(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY, "short"]}))
    assert not check.ok
    assert "16 to 64" in check.remedy
    assert "short" not in check.detail.removesuffix("; one is short")


def test_a_key_is_generated_later_unless_its_app_is_unsigned(tmp_path: Path) -> None:
    assert "one is generated into" in found(tmp_path, TIW_ALLOW_UNSIGNED="0").detail
    assert found(tmp_path, TIW_ALLOW_UNSIGNED=f"0,{APP}").detail == (
        f"none: only unsigned callbacks of 0, {APP} are accepted"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_keys_that_is_not_there_is_not_well(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS_FILE=str(tmp_path / "keys.json"))
    assert (check.ok, check.detail) == (False, f"{tmp_path}/keys.json is not there")


def test_an_app_both_signed_and_unsigned_is_not_well(tmp_path: Path) -> None:
    given = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({5: [KEY]}), TIW_ALLOW_UNSIGNED="5")
    generated_keys(tmp_path)
    made = found(tmp_path, TIW_ALLOW_UNSIGNED=str(APP))
    for check in (given, made):
        assert not check.ok
        assert check.remedy == "take it out of one of them: an app is signed or unsigned, not both"


def test_a_missing_uvloop_is_no_problem_but_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiw.event_loop.find_spec", lambda _: None)
    check = check_event_loop()
    assert (check.ok, check.detail) == (True, "asyncio's own")
    assert "uvloop" in check.remedy
