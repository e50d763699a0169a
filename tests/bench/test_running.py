"""A program under measurement: seen with its children, and ended with them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.machine.proc import own_cpu_s, process_tree
from bench.machine.running import Running

_SPIN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
_REST = "open('here', 'w').close(); time.sleep(60)"
#: A child that spins, then both rest.
PARENT = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {(_SPIN + _REST)!r}])\n"
    "time.sleep(60)"
)
#: Its child makes a group of its own.
DAEMON = PARENT.replace("])\n", "], process_group=0)\n")


def running(folder: Path, script: str) -> Running:
    return Running([sys.executable, "-c", script], environ=environment({}), folder=folder)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_dead(pid: int) -> None:
    deadline_s = time.monotonic() + 10
    while lives(pid):
        assert time.monotonic() < deadline_s, f"{pid} still runs"
        time.sleep(0.01)


@pytest.mark.parametrize("script", [PARENT, DAEMON])
def test_its_children_count_and_end_with_it(tmp_path: Path, script: str) -> None:
    with running(tmp_path, script) as program:
        program.wait_until((tmp_path / "here").exists, what="the child", within_s=30)
        tree = process_tree(program.pid)
        assert len(tree) == 2
        assert program.cpu_s >= 0.3
        assert 5 < program.resident_mb < 200
    for pid in tree:
        wait_dead(pid)


def test_its_cpu_time_is_finer_than_a_tick(tmp_path: Path) -> None:
    with running(tmp_path, _REST) as program:
        program.wait_until((tmp_path / "here").exists, what="its rest", within_s=30)
        ticks = program.cpu_s * 100
        assert abs(ticks - round(ticks)) > 1e-9
        assert program.cpu_s == pytest.approx(own_cpu_s(program.pid), abs=0.005)
    assert own_cpu_s(program_that_is_gone()) == 0.0


def program_that_is_gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_program_that_ends_by_itself_makes_the_round_void(tmp_path: Path) -> None:
    with running(tmp_path, "raise SystemExit('no such thing')") as program:
        with pytest.raises(VoidRoundError, match="ended with 1") as raised:
            program.wait_until(lambda: False, what="never", within_s=30)
        assert "no such thing" in str(raised.value)


def test_a_program_that_does_not_come_makes_the_round_void(tmp_path: Path) -> None:
    with (
        running(tmp_path, "import time; time.sleep(60)") as program,
        pytest.raises(VoidRoundError, match="a miracle"),
    ):
        program.wait_until(lambda: False, what="a miracle", within_s=0.05)


def test_nothing_of_our_own_settings_reaches_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIW_AMQP_URL", "amqp://elsewhere")
    monkeypatch.setenv("BENCH_KEY", "another")
    environ = environment({"BENCH_PORT": "1"})
    assert {name for name in environ if name.startswith(("TIW_", "BENCH_"))} == {"BENCH_PORT"}
