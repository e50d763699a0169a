"""Every documented command and option."""

import argparse
import importlib
import inspect

import pytest

from tiw.parser import build_parser, main

COMMANDS = [
    "up",
    "ingest",
    "ingest --processes 4",
    "work",
    "work finished archive",
    "work --custom",
    "console",
    "keys show --console",
    "keys show --console --reveal --json",
    "migrate",
    "demo",
    "demo --classes 3 --seed -7",
    "simulate --url http://h/callbacks/tiw --app 1400000001",
    "simulate --url U --app 0 --key K --classes 5 --rate 0.5 --seed 42 --concurrency 3 --json",
    "simulate --url U --app 1 --unsigned",
    "recordings list",
    "recordings list --status finished --app 1 --since 3d --limit 0 --json",
    "recordings list --room 5 --teacher T --task T* --until 1d --failed --found-late --contradicted --not-archived",
    "recordings show TASK",
    "recordings show TASK --app 1 --json",
    "events list",
    "events list --unrecognized --bodies --app 1 --since 2026-11-23 --limit 5 --json",
    "events list --type OnlineRecordStarted --task T --source callback --consumer C --until 1d",
    "events show E --json",
    "events replay --consumer archive --event-id E --dry-run",
    "events replay --consumer archive",
    "events replay --consumer archive --since 12h --task T --rate 10 --dry-run --json",
    "dead-letters list",
    "dead-letters list --consumer C --event-id E --app 1 --since 1w --limit 1 --json",
    "dead-letters list --replayed",
    "dead-letters show --event-id E --reason R --replayed --json",
    "dead-letters replay --consumer C --event-id E --reason R --dry-run --json",
    "dead-letters purge --consumer C --event-id E --dry-run --json",
    "forget --task T",
    "forget --task T --app 1 --dry-run --json",
    "consumers",
    "consumers --json",
    "consumers list --json",
    "consumers list archive --json",
    "consumers remove archive",
    "consumers remove archive --force",
    "schema",
    "schema --output docs",
    "config",
    "config --reveal --json",
    "doctor",
    "doctor --json",
]

MISUSE = [
    *("", "nonsense", "up extra", "recordings", "recordings show", "recordings list --status DONE", "dead-letters"),
    *("ingest --processes 0", "ingest --processes x", "ingest --processes -1", "ingest --processes \u0663"),
    *("simulate --app 1", "simulate --url U", "simulate --url U --app x", "simulate --url U --app -1"),
    *(
        "simulate --url U --app 1 --rate 0",
        "simulate --url U --app 1 --rate nan",
        "simulate --url U --app 1 --rate inf",
    ),
    *("simulate --url U --app 1 --seed x", "simulate --url U --app 1 --classes 0", "recordings list --limit -1"),
    *("events replay", "events replay --consumer", "events replay --consumer c --rate -1", "consumers remove"),
    *("consumers nonsense", "config --reveal=yes", "doctor --js", "recordings list --app 1.5"),
]


def parse(line: str) -> argparse.Namespace:
    return build_parser().parse_args(line.split())


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_line_is_understood_and_leads_to_a_function(line: str) -> None:
    module, _, function = parse(line).runs.partition(":")
    run = getattr(importlib.import_module(f"tiw.commands.{module}"), function)
    assert list(inspect.signature(run).parameters) == ["settings", "args"]


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_is_one_sentence_and_exit_code_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tiw: ")
    assert printed.err.count("\n") == 1
    assert "--help`" in printed.err


@pytest.mark.parametrize(
    ("line", "is_json"),
    [
        ("consumers", False),
        ("consumers list", False),
        ("consumers --json", True),
        ("consumers --json list", True),
        ("consumers list --json", True),
        ("consumers --json list --json", True),
    ],
)
def test_consumers_alone_lists_and_json_may_stand_before_or_after(line: str, is_json: bool) -> None:
    parsed = parse(line)
    assert parsed.runs == "consumers:list_all"
    assert parsed.json is is_json


def test_defaults_are_those_of_the_documentation() -> None:
    assert parse("ingest").processes == 1
    assert parse("work").consumers == []
    assert parse("recordings list").limit == 1000
    assert parse("recordings list --status finished").status == "FINISHED"
    assert parse("simulate --url U --app 1").seed is None
    assert parse("simulate --url U --app 1").rate is None


@pytest.mark.parametrize("line", ["--help", "simulate --help", "events replay --help", "consumers --help"])
def test_help_is_on_standard_output(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line)
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: tiw")
    assert "==SUPPRESS==" not in printed.out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("tiw 0.")


@pytest.mark.parametrize(
    ("environ", "line", "sentence"),
    [
        ({"TIW_HTTP": "8080"}, "up", "TIW_HTTP must be HOST:PORT"),
        ({}, "ingest", "`tiw ingest` needs TIW_AMQP_URL"),
        ({}, "work", "`tiw work` needs TIW_AMQP_URL"),
        ({}, "recordings list --since tomorrow", "--since takes"),
        ({}, "events list --until tomorrow", "--until takes"),
        ({}, "simulate --url nonsense --app 1 --unsigned", "the address must be a whole http:// or https:// URL"),
        ({}, "simulate --url http://h --app 1", "no callback key of 1 is known here"),
        ({"TIW_CALLBACK_KEYS": "hunter2"}, "simulate --url http://h --app 1", "JSON"),
        ({}, "consumers remove finished", "finished is built in"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_code_2(
    environ: dict[str, str],
    line: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
) -> None:
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tiw: ")
    assert printed.err.count("\n") == 1
    assert sentence in printed.err
    assert "hunter2" not in printed.err
