"""`tiw simulate`: what it prints."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator import ClassTime, OnProgress, SimulationConfig, SimulationReport
from tests.simulator.vendor_sdk import Sdk
from tiw.commands import simulate
from tiw.parser import build_parser, main
from tiw.settings import read_settings


class Played:
    """Stands in for the simulation: remembers what was asked for and reports what it is told to."""

    def __init__(self, *, gave_up: int = 0, failures: dict[str, int] | None = None) -> None:
        self.configs: list[SimulationConfig] = []
        self.class_times: list[ClassTime | None] = []
        self._given_up = frozenset(f"{number:032x}" for number in range(gave_up))
        self._failures = failures or {}

    async def __call__(
        self,
        config: SimulationConfig,
        *,
        on_progress: OnProgress,
        class_time: ClassTime | None,
        key: Callable[[], str | None] | None,
    ) -> SimulationReport:
        del on_progress, key
        self.class_times.append(class_time)
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


def test_shares_are_what_they_are_told_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    assert run(monkeypatch, played, "--unsigned") == 0
    assert run(monkeypatch, played, "--unsigned", "--drop", "1", "--duplicates", "0", "--disorder", "0.5") == 0
    shares = [(config.drop, config.duplicates, config.disorder) for config in played.configs]
    assert shares == [(0.0, 0.1, 0.2), (1.0, 0.0, 0.5)]


@pytest.mark.parametrize("share", ["1.1", "-0.1", "nan", "some"])
def test_what_is_no_share_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--url", "http://127.0.0.1:1/", "--app", "1", "--drop", share])
    assert ended.value.code == 2
    assert "is not a share from 0 to 1" in capsys.readouterr().err


def test_with_a_speed_the_classes_are_held_within_the_day_that_ends_now(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played()
    assert run(monkeypatch, played, "--unsigned", "--speed", "100000") == 0
    (config,), (class_time,) = played.configs, played.class_times
    assert config.day is not None
    assert class_time is not None
    assert config.day.starts_at <= class_time() <= time.time()
    assert time.time() - config.day.starts_at == pytest.approx(86_400, abs=60)


# The SDK signs by a call that Python 3.12 deprecated.
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")
async def test_the_vendors_api_answers_for_the_classes_until_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    arguments = ["--url", "http://127.0.0.1:1/", "--app", "7", "--unsigned", "--classes", "20", "--seed", "3"]
    vendor = ["--drop", "1", "--speed", "1000000", "--vendor-api", "127.0.0.1:0"]
    parsed = build_parser().parse_args(["simulate", *arguments, *vendor])
    command = asyncio.create_task(simulate.simulate(read_settings({}, is_terminal=False), parsed))
    printed = ""
    while "Ctrl-C" not in printed:
        await asyncio.sleep(0.01)
        printed += capsys.readouterr().err
    told = dict(word.split("=", 1) for word in printed.split() if word.startswith("TIW_VENDOR_"))
    endpoint = told["TIW_VENDOR_ENDPOINT"].removeprefix("http://")
    sdk = Sdk(endpoint, secret_id=told["TIW_VENDOR_SECRET_ID"], secret_key=told["TIW_VENDOR_SECRET_KEY"])
    callback = await sdk.call("DescribeOnlineRecordCallback", SdkAppId=7)
    answer = await sdk.call_json("DescribeRoomList", SdkAppId=7, TimeRange=[0, int(time.time() * 1_000)])
    os.kill(os.getpid(), signal.SIGTERM)

    assert await command == 0
    assert len(answer["RoomList"]) == 20
    assert "dropped" in printed
    assert told["TIW_VENDOR_SITE"] == "china"
    assert (callback["Callback"], callback["CallbackKey"]) == ("http://127.0.0.1:1/", "")
    assert "It was asked 2 times." in capsys.readouterr().err
