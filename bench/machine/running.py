"""A program under measurement: started, watched, ended with all that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from bench.errors import VoidRoundError
from bench.machine import proc

#: How long a program gets to end in order before it is killed.
STOP_TIMEOUT_S = 20.0


class Running:
    """A program that runs; a context manager. What it prints goes to a file."""

    def __init__(self, command: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> None:
        self._command = list(command)
        self._environ = dict(environ)
        self._folder = folder
        self._log = folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Away from the terminal's Ctrl-C, and in a group that can be ended as a whole.
                start_new_session=True,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        """Its process id. Raises `RuntimeError` unless it was started."""
        if self._process is None:
            raise RuntimeError("this program is not running")
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """The CPU time that it and its descendants have used."""
        return proc.cpu_s(self.pid)

    @property
    def resident_mb(self) -> float:
        """Its resident memory, with its descendants', in MB of 10^6 bytes."""
        return proc.resident_bytes(self.pid) / 1e6

    def wait_until(self, condition: Callable[[], bool], *, what: str, within_s: float, every_s: float = 0.02) -> None:
        """Return once `condition` holds. Raises `VoidRoundError` if the program ends before, or time is up."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > deadline_s:
                raise VoidRoundError(f"not within {within_s:g} s: {what}\n{self.output()}")
            time.sleep(every_s)

    def check(self) -> None:
        """Raise `VoidRoundError` if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise VoidRoundError(f"the program ended with {self._process.returncode}\n{self.output()}")

    def stop(self) -> None:
        """End it in order if it still can, and in any case."""
        if self._process is None:
            return
        process, self._process = self._process, None
        descendants = proc.process_tree(process.pid)
        try:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for pid in descendants:
                if pid != process.pid:
                    _kill_if_orphaned(pid, process.pid)
            _kill_group(process.pid)
            process.wait()

    def output(self) -> str:
        """Return the end of what it has printed."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _kill_if_orphaned(pid: int, session: int) -> None:
    """Kill a descendant that made a group of its own but is still of our session, so that no other is hit."""
    try:
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
