"""A program of the pipeline as a supervisor sees it: started, watched, killed, frozen, started again."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from chaos.errors import ChaosError

#: Longest time from a start until it is ready: two busy cores start a dozen interpreters slowly.
READY_WITHIN_S = 300.0

#: Longest orderly end: a drain waits 25 s for its handlers.
STOP_WITHIN_S = 40.0


class Node:
    """`tiw ARGUMENTS` with everything that it starts; it keeps its ports and settings from start to start.

    Code comes from `code`, the folder of a checkout; `environ` may be changed before a start. Whoever makes a node
    kills it in the end.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, environ: Mapping[str, str], code: Path, logs: Path
    ) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.environ = dict(environ)
        self.code = code
        self._log = logs / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id. Raises `ChaosError` while it does not run."""
        if self._process is None:
            raise ChaosError(f"{self.name} is not running")
        return self._process.pid

    @property
    def admin_address(self) -> str:
        """Where its health and metrics are."""
        return f"http://{self.environ['TIW_ADMIN']}"

    @property
    def address(self) -> str:
        """Where an ingest node takes callbacks."""
        return f"http://{self.environ['TIW_HTTP']}/callbacks/tiw"

    def start(self) -> None:
        """Start it; return at once."""
        if self._process is not None:
            raise ChaosError(f"{self.name} runs already")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tiw", *self.arguments],
                env={**self.environ, "PYTHONPATH": str(self.code)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Away from the terminal's Ctrl-C, and in a group that can be ended as a whole.
                start_new_session=True,
            )

    def wait_ready(self, *, within_s: float = READY_WITHIN_S) -> None:
        """Return once it says that it is ready. Raises `ChaosError` if it ends before, or time is up."""
        deadline_s = time.monotonic() + within_s
        while not self.is_ready():
            code = None if self._process is None else self._process.poll()
            if self._process is None or code is not None:
                raise ChaosError(f"{self.name} ended with {code}: {self.log_end()}")
            if time.monotonic() > deadline_s:
                raise ChaosError(f"{self.name} is not ready after {within_s:g} s: {self.log_end()}")
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Whether it says so itself."""
        try:
            with urllib.request.urlopen(f"{self.admin_address}/readyz", timeout=2) as answer:  # noqa: S310 - our own
                return int(answer.status) == 200  # noqa: PLR2004 - OK
        except OSError:
            return False

    def children(self) -> list[int]:
        """Return the process ids of its children."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    def kill_child(self, rng: Random) -> None:
        """Kill one of its children, of chance, as running out of memory would, and wait until a new one runs.

        Raises `ChaosError` if it has none.
        """
        before = self._wait_children()
        victim = rng.choice(before)
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        deadline_s = time.monotonic() + READY_WITHIN_S
        while len(set(self.children()) - {victim}) < len(before) or not self.is_ready():
            if time.monotonic() > deadline_s:
                raise ChaosError(f"{self.name} did not start a new child")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it, and all that it started, as a crash of its machine would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let it, and all that it started, stand still: its sockets stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def stop(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """End it as an operator does. Raises `ChaosError` if it does not end in time, or not with 0."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise ChaosError(f"{self.name} did not end within {within_s:g} s: {self.log_end()}") from None
        finally:
            self.kill()
        if code != 0:
            raise ChaosError(f"{self.name} ended with {code}: {self.log_end()}")

    def log(self) -> str:
        """Return what it has logged, since its first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else "(no log)"

    def log_end(self) -> str:
        """Return the end of what it has logged."""
        return self.log()[-1_500:]

    def _wait_children(self) -> list[int]:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not (children := self.children()):
            if time.monotonic() > deadline_s:
                raise ChaosError(f"{self.name} has no child to kill")
            time.sleep(0.1)
        return children
