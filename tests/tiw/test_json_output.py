"""Whatever takes `--json` prints one document, and docs/output.schema.json describes it."""

import argparse
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tiw.described import check_described
from tests.tiw.filled_folder import APP, STARTED, TASK
from tests.tiw.test_every_command import leaves
from tiw.commands.schema import DOCUMENTS
from tiw.parser import build_parser, main

KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a6e"

#: What a command needs to have something to say, and further ways to run it. ADDRESS stands for a receiver's.
ARGUMENTS = {
    "recordings show": [TASK],
    # Nothing may be fetched from where its only file lies.
    "archive fetch": [TASK, f"{TASK} --again"],
    "events list": ["", "--bodies"],
    "events show": [STARTED],
    "events replay": ["--consumer finished", "--consumer finished --dry-run"],
    "dead-letters replay": ["--consumer finished", "--dry-run"],
    "dead-letters purge": ["", "--dry-run"],
    "spool drain": ["--dry-run"],
    "forget": [f"--task {TASK}", f"--task {TASK} --dry-run"],
    "rejected reverify": ["", "--dry-run"],
    "notify test": ["webhook"],
    "keys show": ["", "--reveal", f"--app {APP}"],
    "keys add": ["--app 5", "--app 5 --stdin"],
    "keys retire": [f"--app {APP} --number 1"],
    "send-test": ["started", "finished --app 5 --room 7 --task test-20261130-0000", "stopped --consumer stopped"],
    "simulate": [f"--url ADDRESS --app {APP} --classes 1"],
    "doctor --await-callback": ["--timeout 0.1"],
}


class _Accepts(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"error_code":0}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its parent calls it
        del format, args


@pytest.fixture
def address() -> Iterator[str]:
    """Give the address of a receiver that accepts everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Accepts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/callbacks/tiw"
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(filled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder with something to say for every command."""
    monkeypatch.setenv("TIW_HTTP", "127.0.0.1:0")
    monkeypatch.setenv("TIW_ADMIN", "127.0.0.1:9")
    monkeypatch.setenv("TIW_NOTIFY", "webhook=http://127.0.0.1:9/nobody")
    monkeypatch.setenv("TIW_ARCHIVE", str(filled_folder.parent / "classes"))
    monkeypatch.setenv("TIW_ARCHIVE_MIN_FREE_BYTES", "0")
    monkeypatch.setattr("sys.stdin", io.StringIO("from the vendor\n"))
    (filled_folder / "callback_keys.json").write_text(json.dumps({APP: [KEY, KEY[::-1]]}), encoding="utf-8")
    return filled_folder


def takes_json(parser: argparse.ArgumentParser) -> bool:
    return any("--json" in action.option_strings for action in parser._actions)


def test_every_command_that_takes_json_has_a_schema() -> None:
    commands = {" ".join(path) for path, parser in leaves(build_parser()) if takes_json(parser)}
    described = set(DOCUMENTS)
    assert commands <= described
    # With some options a command prints another document.
    assert {name.partition(" --")[0] for name in described} == commands
    assert set(ARGUMENTS) <= described


@pytest.mark.parametrize(
    "line",
    [f"{command}|{further}" for command in DOCUMENTS for further in ARGUMENTS.get(command, [""])],
    ids=lambda line: line.replace("|", " ").strip(),
)
def test_what_is_printed_is_as_its_schema_says(
    folder: Path, address: str, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    command, _, further = line.partition("|")
    main([*command.split(), *further.replace("ADDRESS", address).split(), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document
    check_described(command, document)
