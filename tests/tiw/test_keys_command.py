"""`tiw keys`: who owns the file sees and changes the keys, and no key gets anywhere else."""

import io
import json
import os
from pathlib import Path

import pytest

from tiw.parser import main

APP = 1400000001
KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a6e"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    file = tmp_path / "callback_keys.json"
    file.write_text(json.dumps({APP: [KEY]}), encoding="utf-8")
    file.chmod(0o640)
    return file


def keys(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(file.read_bytes())
    return found


def test_keys_are_masked_unless_they_are_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "show"]) == 0
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    assert "--reveal" in printed.err
    assert main(["keys", "show", "--reveal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "source": str(file),
        "keys": [{"sdk_app_id": APP, "number": 1, "key": KEY, "characters": 32}],
    }


def test_who_does_not_own_the_file_does_not_see_them(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert main(["keys", "show", "--reveal"]) == 1
    printed = capsys.readouterr()
    assert KEY not in printed.out
    assert "belongs to another user" in printed.err


def test_a_key_is_added_and_the_old_one_retired(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "--app", str(APP)]) == 0
    added = capsys.readouterr().out.split()[-1]
    assert keys(file) == {str(APP): [KEY, added]}
    assert len(added) == 32
    assert file.stat().st_mode & 0o777 == 0o640
    assert main(["keys", "retire", "--app", str(APP), "--number", "1"]) == 0
    assert keys(file) == {str(APP): [added]}
    assert added not in capsys.readouterr().out
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_key_of_another_application_comes_from_standard_input(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from the vendor\n"))
    assert main(["keys", "add", "--app", "5", "--stdin"]) == 0
    assert keys(file) == {str(APP): [KEY], "5": ["from the vendor"]}
    assert "from the vendor" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("from the vendor\n"))
    assert main(["keys", "add", "--app", "5", "--stdin"]) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["keys", "add", "--app", "5", "--stdin"]) == 2


def test_the_last_key_of_an_application_stays_unless_it_is_forced(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "retire", "--app", str(APP), "--number", "2"]) == 1
    assert main(["keys", "retire", "--app", str(APP), "--number", "1"]) == 1
    assert "add another first" in capsys.readouterr().err
    assert main(["keys", "retire", "--app", str(APP), "--number", "1", "--force"]) == 1
    main(["keys", "add", "--app", "5"])
    assert main(["keys", "retire", "--app", str(APP), "--number", "1", "--force"]) == 0
    assert list(keys(file)) == ["5"]


def test_the_first_key_makes_the_file_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path / "new"))
    assert main(["keys", "add", "--app", "5"]) == 0
    file = tmp_path / "new" / "callback_keys.json"
    assert list(keys(file)) == ["5"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_keys_of_a_variable_are_changed_there(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIW_CALLBACK_KEYS", json.dumps({APP: [KEY]}))
    assert main(["keys", "add", "--app", str(APP)]) == 2
    assert "change the variable" in capsys.readouterr().err
    assert main(["keys", "show"]) == 0
