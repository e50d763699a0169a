"""A process in which all of `tiw` is imported, and whose forks run commands, as `tests.commands` orders.

A fork begins where an interpreter comes to after most of a second of importing. What it starts with `tiw` in its turn
is forked, too: from a process beside it that has imported as much and done nothing since.
"""

import asyncio
import atexit
import ctypes
import fcntl
import gc
import importlib
import os
import pkgutil
import platform
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import Struct
from prometheus_client.mmap_dict import MmapedDict

#: What commands import as they run.
IMPORTED_LATE = ("aiohttp.web", "aiosqlite", "alembic.command", "broker.amqp.transport", "telemetry.pages", "uvloop")

#: An order has an environment in it.
_MAX_ORDER_BYTES = 1 << 17
_MOST_DESCRIPTORS = 16

#: The number of the system call, see clone(2). Its arguments that are not 0 are the same everywhere.
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.platform == "linux" else None
_CLONE_PARENT = 0x00008000

#: Above all numbers that a process of ours gives a descriptor to keep.
_OUT_OF_THE_WAY = 512


class Order(Struct, frozen=True, kw_only=True):
    """A command to run, and what it begins with; `descriptors` are the numbers that it finds those under it was given.

    `as_stranger`: the modes of files hold for it, even if it is root's. `starts_children`: processes of `tiw`, which
    are to be forks. `group` is the process group it belongs to; without one it begins a session.
    """

    arguments: list[str]
    environ: dict[str, str]
    cwd: str
    descriptors: list[int]
    as_stranger: bool = False
    starts_children: bool = False
    group: int | None = None


def can_fork_children() -> bool:
    """Say whether the forks of a command can be its children here."""
    return _CLONE is not None


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
            content, given, _, _ = socket.recv_fds(orders, _MAX_ORDER_BYTES, _MOST_DESCRIPTORS)
            if not content:
                return
            answers, *descriptors = given
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(msgspec.json.decode(content, type=Order), descriptors)
            os.write(answers, str(pid).encode())
            running[pid] = answers
            for descriptor in descriptors:
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


def _become(order: Order, given: Sequence[int]) -> NoReturn:
    code = 70
    try:
        if order.group is None:
            os.setsid()
        else:
            os.setpgid(0, order.group)
        _call_this_process("tiw")
        _place(given, order.descriptors)
        # As an interpreter opens them: what is told of a failure must not wait for more. A fork of this process that
        # opens others in their place must not close what has their numbers.
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, buffering, closefd=False)
            for number, mode, buffering in ((0, "r", -1), (1, "w", -1), (2, "w", 1))
        )
        os.environ.clear()
        os.environ.update(order.environ)
        os.chdir(order.cwd)
        if order.as_stranger:
            _lay_down_privileges()
        if order.starts_children:
            _fork_children()
        # What multiprocessing imports in a process that it starts.
        main = sys.modules["__main__"] = importlib.import_module("tiw.__main__")
        sys.argv = ["tiw", *order.arguments]
        code = main.run()
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


def _place(given: Sequence[int], numbers: Sequence[int]) -> None:
    """Let the descriptors `given` have these numbers, and close all others."""
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _OUT_OF_THE_WAY) for descriptor in given]
    for descriptor, number in zip(aside, numbers, strict=True):
        os.dup2(descriptor, number)
    low = 0
    for number in (*sorted(numbers), 2 * _OUT_OF_THE_WAY):
        if low < number:  # of an empty range it would close everything
            os.closerange(low, number)
        low = number + 1


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


def _fork_children() -> None:
    """Let what this process starts with `tiw` be forks of one that is as this one is now: nothing runs in it yet.

    They are children of this process all the same, see CLONE_PARENT in clone(2).
    """
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        # In a group of its own: what is sent to the others' is not for it. It ends with this process.
        os.setpgid(0, 0)
        ours.close()
        _call_this_process(BESIDE)
        _serve_parent(theirs)
    theirs.close()
    start = asyncio.create_subprocess_exec

    async def start_or_fork(*command: str, env: Mapping[str, str], **options: Any) -> Any:
        if list(command[:4]) != [sys.executable, "-P", "-m", "tiw"]:
            return await start(*command, env=env, **options)
        return Child(ours, command[4:], env, **options)

    asyncio.create_subprocess_exec = start_or_fork  # type: ignore[assignment]  # what our code asks of it


#: What the process beside a command is called, for who counts that one's children.
BESIDE = "tiw-preloaded"


def _call_this_process(name: str) -> None:
    """See PR_SET_NAME in prctl(2)."""
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)


def _serve_parent(orders: socket.socket) -> NoReturn:
    """Start a sibling for each order; whoever gives them waits for it."""
    while True:
        content, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER_BYTES, _MOST_DESCRIPTORS)
        if not content:
            os._exit(0)
        pid = _fork_sibling()
        if pid == 0:
            _become(msgspec.json.decode(content, type=Order), descriptors)
        orders.send(str(pid).encode())
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_sibling() -> int:
    """Do what os.fork() does, but for whose child it is."""
    assert _CLONE is not None
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None, use_errno=True).syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


class Child:
    """A fork that stands for asyncio's process; to be made while a loop runs."""

    def __init__(
        self,
        orders: socket.socket,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        stdin: int,
        stdout: Any = 1,
        stderr: Any = 2,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        reading, self._pipe = os.pipe()
        if stdin == asyncio.subprocess.DEVNULL:
            os.close(reading)
            reading = os.open(os.devnull, os.O_RDONLY)
        standard = [reading, *(one if isinstance(one, int) else one.fileno() for one in (stdout, stderr))]
        order = Order(
            arguments=list(arguments),
            environ=dict(environ),
            cwd=str(Path.cwd()),
            descriptors=[0, 1, 2, *pass_fds],
            group=None if start_new_session else os.getpgrp(),
        )
        socket.send_fds(orders, [msgspec.json.encode(order)], [*standard, *pass_fds])
        self.pid = int(orders.recv(64))
        os.close(reading)
        self._life = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._life, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._life)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._life)
        os.close(self._pipe)
        self._ended.set()

    async def wait(self) -> int:
        """Return the exit code once it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal. Raises `ProcessLookupError` if it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _import_everything() -> None:
    # Imported here: whoever imports this module needs none of it.
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
    # Where metrics are shared, each fork opens files of its own as soon as it counts. Before, it closes these: by
    # numbers that are something else by then, unless they are closed already.
    for one in gc.get_objects():
        if isinstance(one, MmapedDict):
            one.close()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    gc.freeze()


if __name__ == "__main__":
    _import_everything()
    _serve(socket.socket(fileno=int(sys.argv[1])))
