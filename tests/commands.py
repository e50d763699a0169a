"""Runs commands of `tiw` in processes of their own that begin where everything is imported: hundreds take seconds."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from telemetry.metrics import MULTIPROCESS_VARIABLE
from tests import preloaded
from tests.preloaded import Order

ROOT = Path(__file__).resolve().parent.parent

#: Nothing takes so long but on two very busy cores.
GIVE_UP_AFTER_S = 60.0


class Finished(Struct, frozen=True, kw_only=True):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that it printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_command(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    cwd: Path | None = None,
    as_stranger: bool = False,
    stop_after_s: float | None = None,
) -> Finished:
    """Run `tiw` with `arguments` to its end, with `environ` alone, and with nothing on standard input.

    `as_stranger`: the modes of files hold for it, even if it is root's. After `stop_after_s` it gets SIGTERM. Raises
    `TimeoutError` if it does not end.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = StartedCommand(arguments, environ, out=out, err=err, cwd=cwd, as_stranger=as_stranger)
        try:
            code = _wait(command, stop_after_s)
        finally:
            command.close()
        return Finished(code=code, out=_text(out), err=_text(err))


class StartedCommand:
    """`tiw` with `arguments`, which runs. Its session is its own, and what it starts with `tiw` is forked as it is."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        out: IO[bytes],
        err: IO[bytes],
        cwd: Path | None = None,
        as_stranger: bool = False,
    ) -> None:
        has_children = _has_children(arguments, environ)
        order = Order(
            arguments=list(arguments),
            environ=dict(environ),
            cwd=str(cwd or Path.cwd()),
            descriptors=[0, 1, 2],
            as_stranger=as_stranger,
            starts_children=has_children,
        )
        self._answers, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._code: int | None = None
        with theirs, Path(os.devnull).open("rb") as nothing:
            descriptors = [theirs.fileno(), nothing.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(_server(shares_metrics=has_children), [msgspec.json.encode(order)], descriptors)
        self._answers.settimeout(GIVE_UP_AFTER_S)
        self.pid = int(self._answers.recv(64))

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        with suppress(TimeoutError, BlockingIOError):
            return self.wait(0)
        return None

    def wait(self, within_s: float | None = None) -> int:
        """Return the exit code once it has ended. Raises `TimeoutError` if it does not in time."""
        if self._code is None:
            self._answers.settimeout(within_s)
            self._code = int(self._answers.recv(64))
            self._answers.close()
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """End it with all that it has started, if it still runs, and forget it."""
        if self._code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._answers.close()


def _wait(command: StartedCommand, stop_after_s: float | None) -> int:
    if stop_after_s is not None:
        with suppress(TimeoutError):
            return command.wait(stop_after_s)
        command.send_signal(signal.SIGTERM)
    return command.wait(GIVE_UP_AFTER_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _has_children(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Say whether a command may start others, with which it shares its metrics: so does `tiw.process`."""
    if not preloaded.can_fork_children():
        return False
    return "--processes" in arguments or (arguments[0] in ("up", "work") and bool(environ.get("TIW_CONSUMERS")))


_servers: dict[bool, socket.socket] = {}
_starting = threading.Lock()


def _server(*, shares_metrics: bool) -> socket.socket:
    """Start the process that commands are forks of; it ends with this one.

    Where metrics live is decided when they are imported.
    """
    with _starting:
        if shares_metrics in _servers:
            return _servers[shares_metrics]
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        folder = tempfile.TemporaryDirectory(prefix="tiw-preloaded-")
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        if shares_metrics:
            environ[MULTIPROCESS_VARIABLE] = folder.name
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-P", preloaded.__file__, str(theirs.fileno())],
                env=environ,
                pass_fds=[theirs.fileno()],
            )

        def end() -> None:
            ours.close()
            server.wait(GIVE_UP_AFTER_S)
            folder.cleanup()

        atexit.register(end)
        _servers[shares_metrics] = ours
        return ours
