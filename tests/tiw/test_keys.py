"""Which callback keys hold, and how a person gets to know a generated one."""

import json
import re
from pathlib import Path

import pytest

from ingest import KeysError
from tiw.keys import open_keys
from tiw.settings import Settings, UsageError, read_settings

APP = 1400000001
KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a6e"


def settings(folder: Path, **environ: str) -> Settings:
    return read_settings({"TIW_DATA_DIR": str(folder), **environ}, is_terminal=False)


def test_keys_of_the_environment_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = open_keys(settings(tmp_path, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY, KEY[:-1]]})))
    assert ring.current == {APP: (KEY, KEY[:-1])}
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_keys_of_a_file_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({APP: [KEY]}), encoding="utf-8")
    assert open_keys(settings(tmp_path, TIW_CALLBACK_KEYS_FILE=str(file))).current == {APP: (KEY,)}
    assert capsys.readouterr() == ("", "")


def test_without_any_one_is_generated_and_printed_this_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_keys(settings(tmp_path)).current
    printed = capsys.readouterr()
    assert re.fullmatch(rf"callback key for {APP}: [0-9a-f]{{32}}\n", printed.out)
    assert first == {APP: (printed.out.split()[-1],)}
    assert printed.err == ""
    assert open_keys(settings(tmp_path)).current == first
    assert capsys.readouterr() == ("", "")


def test_a_wrong_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(KeysError, match=r"keys\.json"):
        open_keys(settings(tmp_path, TIW_CALLBACK_KEYS_FILE=str(file)))
    file.write_text(f'{{"{APP}": "{KEY}"', encoding="utf-8")
    with pytest.raises(KeysError) as refused:
        open_keys(settings(tmp_path, TIW_CALLBACK_KEYS_FILE=str(file)))
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", f'{{"{APP}": []}}', f'{{"{APP}": [""]}}'])
def test_what_is_wrong_with_the_keys_is_said_with_the_name_of_their_variable(tmp_path: Path, text: str) -> None:
    file = tmp_path / "callback_keys.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(KeysError, match=r"^TIW_CALLBACK_KEYS: "):
        open_keys(settings(tmp_path, TIW_CALLBACK_KEYS=text))
    with pytest.raises(KeysError, match=r"^TIW_CALLBACK_KEYS_FILE: "):
        open_keys(settings(tmp_path, TIW_CALLBACK_KEYS_FILE=str(file)))
    with pytest.raises(KeysError, match=rf"^TIW_DATA_DIR, in {file}: "):
        open_keys(settings(tmp_path))


def test_a_folder_that_can_hold_no_key_is_named_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeysError, match=r"^TIW_DATA_DIR, .*no callback key can be kept"):
        open_keys(settings(tmp_path / "file" / "var"))


def test_an_app_is_signed_or_unsigned_not_both(tmp_path: Path) -> None:
    keys = json.dumps({APP: [KEY], 5: [KEY]})
    with pytest.raises(UsageError, match="TIW_ALLOW_UNSIGNED names 5, which also has callback keys") as refused:
        open_keys(settings(tmp_path, TIW_CALLBACK_KEYS=keys, TIW_ALLOW_UNSIGNED="0,5"))
    assert KEY not in str(refused.value)


def test_no_key_is_made_for_the_usual_app_when_it_is_unsigned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_keys(settings(tmp_path, TIW_ALLOW_UNSIGNED=str(APP))).current == {}
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_key_that_was_made_before_makes_the_usual_app_a_signed_one(tmp_path: Path) -> None:
    open_keys(settings(tmp_path))
    with pytest.raises(UsageError, match=rf"names {APP}, which also has callback keys \(.*callback_keys\.json\)"):
        open_keys(settings(tmp_path, TIW_ALLOW_UNSIGNED=str(APP)))


def test_a_key_is_made_beside_unsigned_callbacks_of_others(tmp_path: Path) -> None:
    assert set(open_keys(settings(tmp_path, TIW_ALLOW_UNSIGNED="0")).current) == {APP}
