"""Children are kept running, and end with their parent."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.types import EventDict

from tiw import children as processes
from tiw.children import Processes, child_environment, tiw_command

ROOT = Path(__file__).resolve().parents[2]

#: Notes its start as a line of the file that it is given, then does what it is told.
_NOTE = "import os, signal, sys, time, pathlib; p = pathlib.Path(sys.argv[1]); p.open('a').write(f'{os.getpid()}\\n'); "


def child(file: Path, then: str) -> list[str]:
    return [sys.executable, "-c", _NOTE + then, str(file)]


def starts(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def lives(pid: int) -> bool:
    """Whether a process is there and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not is_so():
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.01)


async def until(is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, is_so)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_RESTART_S", 0.01)
    monkeypatch.setattr(processes, "LAST_RESTART_S", 0.04)


@pytest.fixture
async def logs() -> AsyncIterator[list[EventDict]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


def run(command: Sequence[str], *, grace_s: float = 20.0) -> Processes:
    return Processes({"one": command}, environ=os.environ, grace_s=grace_s)


async def test_a_child_that_ends_is_started_again_later_each_time_up_to_a_limit(
    tmp_path: Path, fast: None, logs: list[EventDict]
) -> None:
    file = tmp_path / "starts"
    async with run(child(file, "sys.exit(3)")):
        await until(lambda: len(starts(file)) >= 5)
    ended = [entry for entry in logs if entry["event"] == "process_ended"]
    assert [entry["restart_in_s"] for entry in ended[:4]] == [0.01, 0.02, 0.04, 0.04]
    assert {(entry["process"], entry["exit"]) for entry in ended} == {("one", "code 3")}


async def test_a_child_that_ran_long_is_started_again_soon(
    tmp_path: Path, fast: None, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "WELL_AFTER_S", 0.0)
    file = tmp_path / "starts"
    async with run(child(file, "pass")):
        await until(lambda: len(starts(file)) >= 4)
    assert {entry["restart_in_s"] for entry in logs} == {0.01}


async def test_a_child_that_is_killed_is_said_to_be(tmp_path: Path, fast: None, logs: list[EventDict]) -> None:
    file = tmp_path / "starts"
    async with run(child(file, "time.sleep(60)")) as running:
        await until(lambda: len(starts(file)) == 1 and running.not_running == [])
        os.kill(starts(file)[0], signal.SIGKILL)
        await until(lambda: len(starts(file)) == 2)
    assert logs[0]["exit"] == "signal SIGKILL"


async def test_a_command_that_cannot_be_started_is_tried_again(
    tmp_path: Path, fast: None, logs: list[EventDict]
) -> None:
    program = tmp_path / "program"
    file = tmp_path / "starts"
    async with run([str(program), str(file)]) as running:
        await until(lambda: len(logs) >= 2)
        assert running.not_running == ["one"]
        draft = tmp_path / "draft"
        draft.write_text(f'#!/bin/sh\necho $$ >> "$1"\nexec {sys.executable} -c "import time; time.sleep(60)"\n')
        draft.chmod(0o755)
        draft.rename(program)
        await until(lambda: len(starts(file)) == 1)
    assert logs[0]["exit"] == "not started: No such file or directory"


async def test_who_does_not_run_is_named(tmp_path: Path) -> None:
    commands = {
        "well": child(tmp_path / "well", "time.sleep(60)"),
        "ill": child(tmp_path / "ill", "sys.exit(1)"),
    }
    async with Processes(commands, environ=os.environ) as running:
        assert running.not_running == ["ill", "well"]
        await until(lambda: running.not_running == ["ill"])


async def test_leaving_asks_every_child_to_stop_and_waits_for_it(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(3)]
    slowly = "signal.signal(15, lambda *_: (time.sleep(0.2), p.with_suffix('.end').touch(), sys.exit())); "
    then = slowly + "p.with_suffix('.up').touch(); time.sleep(60)"
    commands = {file.name: child(file, then) for file in files}
    async with Processes(commands, environ=os.environ):
        await until(lambda: all(file.with_suffix(".up").exists() for file in files))
        pids = [starts(file)[0] for file in files]
    assert all(file.with_suffix(".end").exists() for file in files)
    assert not any(lives(pid) for pid in pids)


async def test_a_child_that_does_not_stop_within_its_grace_is_killed(tmp_path: Path, logs: list[EventDict]) -> None:
    file = tmp_path / "starts"
    then = "signal.signal(15, signal.SIG_IGN); p.with_suffix('.up').touch(); time.sleep(60)"
    async with run(child(file, then), grace_s=0.1):
        await until(file.with_suffix(".up").exists)
    assert not lives(starts(file)[0])
    assert logs == [{"event": "process_killed", "process": "one", "grace_s": 0.1, "log_level": "warning"}]


async def test_leaving_while_a_restart_is_awaited_starts_nothing_more(tmp_path: Path, logs: list[EventDict]) -> None:
    file = tmp_path / "starts"
    async with run(child(file, "sys.exit(1)")):
        await until(lambda: len(logs) == 1)
    assert len(starts(file)) == 1


PARENT = """
import asyncio, os, sys
from tiw.children import Processes

async def main():
    async with Processes({"child": sys.argv[1:]}, environ=os.environ):
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_pipe_of_a_child_ends_with_its_parent_however_that_ends(tmp_path: Path, end: signal.Signals) -> None:
    file = tmp_path / "starts"
    command = child(file, "sys.stdin.read(); p.with_suffix('.end').touch()")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command], env=environ)
    try:
        wait_until(lambda: len(starts(file)) == 1)
        assert not file.with_suffix(".end").exists()
        parent.send_signal(end)
        parent.wait(timeout=20)
        wait_until(file.with_suffix(".end").exists)
    finally:
        parent.kill()
        parent.wait()
        for pid in starts(file):
            if lives(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_child_of_ours_imports_our_packages_wherever_it_runs(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise RuntimeError\n")
    environ = child_environment({"PATH": os.environ["PATH"], "TIW_HTTP": "127.0.0.1:1"})
    assert environ["TIW_HTTP"] == "127.0.0.1:1"
    ended = subprocess.run(
        tiw_command("config", "--json"), cwd=tmp_path, env=environ, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b'"http": "127.0.0.1:1"' in ended.stdout
