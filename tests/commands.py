"""Runs commands of `tiw` in processes of their own that begin where everything is imported: hundreds take seconds.

Run as a program, this file is the process that the commands are forks of.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec
from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent

#: Nothing takes so long but on two very busy cores.
GIVE_UP_AFTER_S = 60.0

#: What commands import as they run.
IMPORTED_LATE = ("aiosqlite", "alembic.command", "uvloop")

#: An order has an environment in it.
_MAX_ORDER_BYTES = 1 << 17


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
    order = _Order(
        arguments=list(arguments), environ=dict(environ), cwd=str(cwd or Path.cwd()), as_stranger=as_stranger
    )
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with theirs:
            descriptors = [theirs.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(_server(), [msgspec.json.encode(order)], descriptors)
        return Finished(code=_exit_code(ours, stop_after_s), out=_text(out), err=_text(err))


class _Order(Struct, frozen=True, kw_only=True):
    arguments: list[str]
    environ: dict[str, str]
    cwd: str
    as_stranger: bool


def _exit_code(answers: socket.socket, stop_after_s: float | None) -> int:
    answers.settimeout(GIVE_UP_AFTER_S)
    pid = int(answers.recv(64))
    try:
        answers.settimeout(stop_after_s or GIVE_UP_AFTER_S)
        return int(answers.recv(64))
    except TimeoutError:
        if stop_after_s is None:
            os.killpg(pid, signal.SIGKILL)
            raise
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    try:
        answers.settimeout(GIVE_UP_AFTER_S)
        return int(answers.recv(64))
    except TimeoutError:
        os.killpg(pid, signal.SIGKILL)
        raise


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@cache
@cache
def _server() -> socket.socket:
    """Start the process that the commands are forks of; it ends with this one."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        server.wait(GIVE_UP_AFTER_S)

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> None:
    """Start a process for each order, until whoever gives them ends."""
    running: dict[int, int] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([orders.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _tell_ended(running)
        if orders.fileno() in ready:
            content, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER_BYTES, 3)
            if not content:
                return
            answers, *standard = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(msgspec.json.decode(content, type=_Order), *standard)
            os.write(answers, str(pid).encode())
            running[pid] = answers
            for descriptor in standard:
                os.close(descriptor)


def _tell_ended(running: dict[int, int]) -> None:
    """Tell the exit codes of all that have ended since, and take them out of `running`."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        answers = running.pop(pid)
        with suppress(OSError):  # who asked has given up
            os.write(answers, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(answers)


def _become(order: _Order, out: int, err: int) -> NoReturn:
    code = 70
    try:
        os.setsid()
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
        os.environ.clear()
        os.environ.update(order.environ)
        os.chdir(order.cwd)
        if order.as_stranger:
            _lay_down_privileges()
        from tiw.__main__ import run  # noqa: PLC0415 - see above

        sys.argv = ["tiw", *order.arguments]
        code = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code & 0xFF)


def _lay_down_privileges() -> None:
    """Let the modes of files hold for this process, even if it is root's: capabilities(7), capset(2)."""
    version, dac_override_and_read_search = 0x20080522, 0b110
    header = (ctypes.c_uint32 * 2)(version, 0)
    words = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, words)
    for word in (0, 1):  # effective, permitted
        words[word] &= ~dac_override_and_read_search
    if libc.capset(header, words) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _import_everything() -> None:
    # Imported here: whoever starts this program needs none of it.
    from tiw.__main__ import PACKAGES  # noqa: PLC0415
    from tiw.parser import build_parser  # noqa: PLC0415

    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for library in IMPORTED_LATE:
        with suppress(ModuleNotFoundError):
            importlib.import_module(library)
    build_parser()
    gc.freeze()


if __name__ == "__main__":
    _import_everything()
    _serve(socket.socket(fileno=int(sys.argv[1])))
