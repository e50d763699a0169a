"""`tiw simulate`: what it prints."""

import json
from pathlib import Path

import pytest

from simulator import OnProgress, SimulationConfig, SimulationReport
from tiw.commands import simulate
from tiw.parser import main


class Played:
    """Stands in for the simulation: remembers what was asked for and reports what it is told to."""

    def __init__(self, *, gave_up: int = 0, failures: dict[str, int] | None = None) -> None:
        self.configs: list[SimulationConfig] = []
        self._given_up = frozenset(f"{number:032x}" for number in range(gave_up))
        self._failures = failures or {}

    async def __call__(self, config: SimulationConfig, *, on_progress: OnProgress) -> SimulationReport:
        del on_progress
        self.configs.append(config)
        return SimulationReport(
            sent=40,
            accepted=40 - len(self._given_up),
            gave_up=len(self._given_up),
            retries=0,
            p50_ms=1.5,
            p99_ms=None,
            duplicates=0,
            elapsed_s=1.0,
            accepted_ids=frozenset(),
            given_up_ids=self._given_up,
            failures=self._failures,
        )


def run(monkeypatch: pytest.MonkeyPatch, played: Played, *arguments: str) -> int:
    monkeypatch.setattr(simulate, "run_simulation", played)
    return main(["simulate", "--url", "http://127.0.0.1:1/", "--app", "1", *arguments])


def test_the_counts_are_one_json_document_and_the_seed_stands_beside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played = Played()
    assert run(monkeypatch, played, "--unsigned", "--seed", "42", "--classes", "3", "--rate", "2.5") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "sent": 40,
        "accepted": 40,
        "gave_up": 0,
        "retries": 0,
        "p50_ms": 1.5,
        "p99_ms": None,
    }
    assert printed.err == "seed 42\n"
    (config,) = played.configs
    assert (config.seed, config.key, config.classes, config.rate) == (42, None, 3, 2.5)


def test_without_a_seed_each_run_has_a_new_one_and_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played = Played()
    for _ in range(4):
        assert run(monkeypatch, played, "--unsigned") == 0
    seeds = [config.seed for config in played.configs]
    assert capsys.readouterr().err.splitlines() == [f"seed {seed}" for seed in seeds]
    assert len(set(seeds)) > 1


def test_what_was_given_up_and_why_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, Played(gave_up=2, failures={"HTTP 503": 3, "time-out": 9}), "--unsigned") == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        "failed 9 times: time-out",
        "failed 3 times: HTTP 503",
        f"gave up {0:032x}",
        f"gave up {1:032x}",
    ]


def test_at_most_20_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, Played(gave_up=25), "--unsigned") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("gave up 0")]) == 20
    assert lines[-1] == "gave up 5 more"


@pytest.mark.parametrize("source", ["option", "environment", "file", "generated"])
def test_the_key_is_the_one_that_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    keys = '{"1": ["first-key-of-this-app", "next-key-of-this-app"]}'
    arguments: list[str] = []
    if source == "option":
        arguments = ["--key", "first-key-of-this-app"]
    elif source == "environment":
        monkeypatch.setenv("TIW_CALLBACK_KEYS", keys)
    else:
        file = tmp_path / ("callback_keys.json" if source == "generated" else "other.json")
        file.write_text(keys, encoding="utf-8")
        if source == "file":
            monkeypatch.setenv("TIW_CALLBACK_KEYS_FILE", str(file))
    played = Played()
    assert run(monkeypatch, played, *arguments) == 0
    assert [config.key for config in played.configs] == ["first-key-of-this-app"]
