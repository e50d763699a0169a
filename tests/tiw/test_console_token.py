"""The token of the console: made once, for its owner alone, shown where it was asked for and nowhere else."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tiw.console_token import (
    ConsoleToken,
    console_address,
    greeting,
    known_console_token,
    open_console_token,
    present_console_token,
)
from tiw.parser import main
from tiw.settings import Address, Settings, UsageError

TOKEN = "of-the-settings-0123456789"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)


def changed(settings: Settings, **values: Any) -> Settings:
    return Settings(**{name: getattr(settings, name) for name in settings.__struct_fields__} | values)


def test_it_is_made_once_for_its_owner_alone(settings: Settings) -> None:
    assert present_console_token(settings) is None
    made = open_console_token(settings)
    file = settings.data_dir / "console_token"
    assert made.created
    assert len(made.token) == 32
    assert file.read_text(encoding="ascii") == f"{made.token}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert open_console_token(settings) == ConsoleToken(token=made.token, created=False)
    assert present_console_token(settings) == made.token
    assert [path.name for path in settings.data_dir.iterdir()] == ["console_token"]
    assert made.token not in repr(made)


def test_many_processes_that_begin_at_once_make_one(settings: Settings) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: open_console_token(settings), range(64)))
    assert len({one.token for one in made}) == 1
    assert sum(one.created for one in made) == 1


def test_that_of_the_settings_is_taken_and_none_is_made(settings: Settings) -> None:
    given = changed(settings, console_token=TOKEN)
    assert open_console_token(given) == ConsoleToken(token=TOKEN, created=False)
    assert present_console_token(given) == TOKEN
    assert list(settings.data_dir.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40, b"with spaces and more than enough characters"])
def test_a_file_without_a_token_is_named(settings: Settings, content: bytes) -> None:
    (settings.data_dir / "console_token").write_bytes(content)
    with pytest.raises(UsageError, match=f"token of the console in {settings.data_dir}/console_token"):
        open_console_token(settings)


def test_a_folder_that_cannot_be_written_is_named(settings: Settings) -> None:
    (settings.data_dir / "file").touch()
    with pytest.raises(UsageError, match="set TIW_CONSOLE_TOKEN"):
        open_console_token(changed(settings, data_dir=settings.data_dir / "file"))


def test_the_generated_one_is_not_for_those_who_only_look(settings: Settings) -> None:
    token = open_console_token(settings).token
    with pytest.raises(UsageError, match="TIW_CONSOLE_READ_TOKEN is the token in") as raised:
        open_console_token(changed(settings, console_read_token=token))
    assert token not in str(raised.value)


def test_a_process_that_was_there_first_finds_it_later(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    known = known_console_token(settings)
    assert known() is None
    made = open_console_token(settings).token
    assert known() is None, "it looks once a second at most, whoever asks"
    now_s += 1
    assert known() == made
    (settings.data_dir / "console_token").unlink()
    now_s += 10
    assert known() == made
    assert known_console_token(changed(settings, console_token=TOKEN))() == TOKEN
    assert known_console_token(changed(settings, console_token=TOKEN, console=None))() is None


def test_a_file_that_cannot_be_used_is_none_for_who_only_compares(settings: Settings) -> None:
    (settings.data_dir / "console_token").write_bytes(b"short")
    assert known_console_token(settings)() is None
    assert known_console_token(changed(settings, data_dir=settings.data_dir / "console_token"))() is None


def test_the_address_is_one_that_a_browser_of_this_machine_can_use(settings: Settings) -> None:
    assert console_address(settings) == "http://127.0.0.1:8090"
    assert console_address(settings, port=5) == "http://127.0.0.1:5"
    everywhere = changed(settings, console=Address(host="0.0.0.0", port=8090))
    assert console_address(everywhere) == "http://127.0.0.1:8090"
    assert console_address(changed(settings, console=Address(host="::", port=8090))) == "http://[::1]:8090"
    assert console_address(changed(everywhere, console_url="https://tiw.school")) == "https://tiw.school"


def test_it_is_greeted_with_on_a_terminal_and_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made, there = ConsoleToken(token=TOKEN, created=True), ConsoleToken(token=TOKEN, created=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert greeting("http://h:1", made) == f"console    http://h:1/login#{TOKEN}"
    assert TOKEN not in greeting("http://h:1", there)
    assert "tiw keys show --console --reveal" in greeting("http://h:1", there)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert greeting("http://h:1", there) == f"console    http://h:1/login#{TOKEN}"


class TestKeysShow:
    """`tiw keys show --console`."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))

    def test_the_token_is_masked_unless_it_is_asked_for(
        self, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert main(["keys", "show", "--console"]) == 0
        assert "No token yet" in capsys.readouterr().out
        token = open_console_token(settings).token
        monkeypatch.setenv("TIW_CONSOLE_READ_TOKEN", TOKEN)
        assert main(["keys", "show", "--console"]) == 0
        printed = capsys.readouterr()
        assert token not in printed.out + printed.err
        assert TOKEN not in printed.out + printed.err
        assert "--reveal" in printed.err
        assert main(["keys", "show", "--console", "--reveal", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "address": "http://127.0.0.1:8090",
            "source": str(settings.data_dir / "console_token"),
            "token": token,
            "read_token": TOKEN,
            "link": f"http://127.0.0.1:8090/login#{token}",
        }

    def test_who_does_not_own_the_file_does_not_see_it(
        self, settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = open_console_token(settings).token
        owner = (settings.data_dir / "console_token").stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        assert main(["keys", "show", "--console", "--reveal"]) == 1
        printed = capsys.readouterr()
        assert token not in printed.out + printed.err
        assert "belongs to another user" in printed.err

    def test_there_is_none_to_show_where_the_console_is_off(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TIW_CONSOLE", "off")
        assert main(["keys", "show", "--console"]) == 1
        assert "TIW_CONSOLE is off" in capsys.readouterr().err
