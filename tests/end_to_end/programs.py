"""`tiw` as a process of its own, with what it prints in files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tests.commands import Finished, StartedCommand, run_command
from tests.preloaded import BESIDE

ROOT = Path(__file__).resolve().parent.parent.parent

#: Longest wait for anything that should happen soon: two busy cores start a dozen interpreters slowly.
DEADLINE_S = 60.0

#: The longest that a process may take to end, by its promise.
STOP_S = 10.0

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, within_s: float = DEADLINE_S, every_s: float = 0.05) -> T:
    """Return the first true value of `condition`; fail if there is none in time."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"still {value!r} after {within_s:g} s"
        time.sleep(every_s)
    return value


def command_line(*arguments: str) -> list[str]:
    """Return the command line of `tiw`, as ./dev runs it."""
    return [sys.executable, "-P", "-m", "tiw", *arguments]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: `settings`, and nothing of TIW_ from the one that runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIW_")}
    # Where the console is not what is tried, it would only be a port that two of them want.
    return {**inherited, "PYTHONPATH": str(ROOT), "TIW_CONSOLE": "off", **settings}


def run(settings: Mapping[str, str], *arguments: str, cwd: Path | None = None) -> Finished:
    """Run a command to its end."""
    return run_command(arguments, environment(settings), cwd=cwd)


def is_running(pid: int) -> bool:
    """Say whether a process lives; one that has ended may stay a zombie where its new parent does not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def name_of(pid: int) -> str:
    """Return what a process is called; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Program:
    """A command that runs until it is stopped. Whoever makes one stops or kills it.

    It begins where everything is imported, see `tests.preloaded`, and so do its children; `anew`: as users start it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *arguments: str, anew: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.err")))
        self._out = folder / f"{number:02}-{arguments[0]}.out"
        self._err = self._out.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process: StartedCommand | subprocess.Popen[bytes]
            if anew:
                self._process = subprocess.Popen(
                    command_line(*arguments),
                    env=environment(settings),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    # A group of its own, so that what it leaves behind can be found.
                    start_new_session=True,
                )
            else:
                self._process = StartedCommand(arguments, environment(settings), out=out, err=err)
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it has logged, with its children."""
        return self._err.read_text(encoding="utf-8")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def logged(self, event: str, **values: object) -> list[dict[str, Any]]:
        """Return its log lines of `event` that have these values."""
        lines = (json.loads(line) for line in self.err.splitlines() if line.startswith("{") and line.endswith("}"))
        return [line for line in lines if line.get("event") == event and values.items() <= line.items()]

    def told(self, event: str, **values: object) -> list[str]:
        """Return the TaskIds of its log lines of `event`: large groups are told of in one line."""
        lines = self.logged(event, **values)
        return [task_id for line in lines for task_id in line.get("task_ids") or [line["task_id"]]]

    def wait_logged(self, event: str, *, within_s: float = DEADLINE_S, **values: object) -> dict[str, Any]:
        """Return the first such line, once it is there."""

        def look() -> list[dict[str, Any]]:
            lines = self.logged(event, **values)
            assert lines or self.code is None, f"it ended with {self.code}:\n{self.err}"
            return lines

        return eventually(look, within_s=within_s)[0]

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        pids = map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        return [pid for pid in pids if name_of(pid) != BESIDE]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, *, within_s: float = DEADLINE_S) -> int:
        """Return its exit code once it has ended."""
        return self._process.wait(within_s)

    def stop(self, *, within_s: float = STOP_S) -> None:
        """End it as an operator does, and expect an orderly end in time, with nothing left behind."""
        if self.code is None:
            self.signal(signal.SIGTERM)
        code = self.wait(within_s=within_s)
        assert code == 0, f"exit {code}:\n{self.err}"
        assert "Traceback" not in self.err, self.err
        assert not self._kill_group(), "a child outlived it"

    def kill(self) -> None:
        """End it, and what it started, as a crash of the machine would."""
        self._kill_group()
        self._process.wait()

    def _kill_group(self) -> bool:
        """Say whether there was anything left to kill."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
