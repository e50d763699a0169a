"""A handler's own count."""

import json
import threading
from pathlib import Path

import pytest

from bench.contenders.progress import MESSAGES, REPORT, Progress


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "report.json"
    monkeypatch.setenv(MESSAGES, "10")
    monkeypatch.setenv(REPORT, str(path))
    return path


def test_the_report_is_written_when_the_last_message_is_handled(report: Path) -> None:
    progress = Progress()
    for _ in range(9):
        progress.handled()
    assert not report.exists()
    progress.handled()
    content = json.loads(report.read_bytes())
    assert content["messages"] == 9
    assert content["elapsed_s"] >= 0
    assert content["cpu_s"] >= 0


def test_a_group_counts_as_many_as_it_holds_and_the_first_one_is_the_start(report: Path) -> None:
    progress = Progress()
    progress.handled(4)
    progress.handled(6)
    assert json.loads(report.read_bytes())["messages"] == 6


def test_a_message_that_is_delivered_again_does_not_write_it_anew(report: Path) -> None:
    progress = Progress()
    for _ in range(10):
        progress.handled()
    report.unlink()
    progress.handled()
    assert not report.exists()


def test_threads_do_not_lose_count(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MESSAGES, "4000")
    progress = Progress()

    def handle() -> None:
        for _ in range(1000):
            progress.handled()

    threads = [threading.Thread(target=handle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(report.read_bytes())["messages"] == 3999
