"""Child processes of the command line: started, kept running, asked whether they are ready, stopped with their parent.

Each child says whether it is ready through the metrics that all share anyway; the parent asks all.
"""

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import sys
import sysconfig
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self

import structlog

from telemetry import Readiness, ReadyCheck, forget_process, metrics
from tiw.opening import cannot_listen
from tiw.settings import Address

#: A child that ends is started again after this long, doubled each time, up to the last. Not longer: an event that
#: kills its worker six times is given up, and until then those behind it wait through these pauses.
FIRST_RESTART_S = 1.0
LAST_RESTART_S = 5.0

#: A child that ran this long is taken to be well: the next restart waits for FIRST_RESTART_S again.
WELL_AFTER_S = 60.0

_ROOT = Path(__file__).resolve().parent.parent

#: Whether our packages were installed, from a wheel: then Python finds them by itself.
_IS_INSTALLED = Path(sysconfig.get_path("purelib")).resolve() == _ROOT

_log = structlog.get_logger()


def tiw_command(*arguments: str) -> list[str]:
    """Return the command line that runs `tiw` with `arguments` in this interpreter."""
    # -P: neither the working directory nor its packages come before ours.
    return [sys.executable, "-P", "-m", "tiw", *arguments]


def consumer_command(name: str, source: str) -> list[str]:
    """Return the command line of a child that runs one consumer of a user, and loads nothing but its `source`."""
    return tiw_command("work", "--child", name, "--source", source)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with our packages on Python's path, before what is there."""
    if _IS_INSTALLED:
        # Named here, everything else that is installed beside them would come before the standard library.
        return dict(environ)
    paths = [str(_ROOT), *(path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return {**environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class Processes:
    """Keeps one child running for each of `commands` (name to command line); an async context manager.

    `keep` adds one later, and `drop` stops it. Each child has a pipe on its standard input that ends when this process
    ends, however it does: `stop_requests` notices. Leaving sends SIGTERM, waits `grace_s`, then kills. All children get
    `descriptors`, by the same numbers.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        environ: Mapping[str, str],
        grace_s: float = 30.0,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._commands = dict(commands)
        self._environ = child_environment(environ)
        self._grace_s = grace_s
        self._descriptors = descriptors
        self._running: dict[str, Process] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> list[str]:
        """The names of the children, whether they run or not."""
        return sorted(self._commands)

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that run right now."""
        return [process.pid for process in self._running.values()]

    @property
    def not_running(self) -> list[str]:
        """The names of the children that are not running right now."""
        return sorted(set(self._commands) - set(self._running))

    def keep(self, name: str, command: Sequence[str]) -> None:
        """Keep another child running from now on."""
        self._commands[name] = command
        self._tasks[name] = asyncio.create_task(self._keep(name), name=f"child {name}")

    async def drop(self, name: str) -> None:
        """Stop a child for good, as leaving stops all."""
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.wait({task})
        del self._commands[name]

    async def __aenter__(self) -> Self:
        for name, command in list(self._commands.items()):
            self.keep(name, command)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _keep(self, name: str) -> None:
        restart_s = FIRST_RESTART_S
        while True:
            started_s = time.monotonic()
            try:
                ended = describe_exit(await self._run(name))
            except OSError as error:
                # No memory or no process left: the next time there may be.
                ended = f"not started: {error.strerror}"
            if time.monotonic() - started_s > WELL_AFTER_S:
                restart_s = FIRST_RESTART_S
            _log.error("process_ended", process=name, exit=ended, restart_in_s=restart_s)
            await asyncio.sleep(restart_s)
            restart_s = min(2 * restart_s, LAST_RESTART_S)

    async def _run(self, name: str) -> int:
        def note(process: Process) -> None:
            self._running[name] = process

        try:
            return await run_child(
                name,
                self._commands[name],
                environ=self._environ,
                grace_s=self._grace_s,
                descriptors=self._descriptors,
                started=note,
            )
        finally:
            self._running.pop(name, None)


async def run_child(
    name: str,
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    grace_s: float,
    descriptors: Sequence[int] = (),
    started: Callable[[Process], None] = lambda _: None,
) -> int:
    """Run a child to its end and return its exit code, negative for a signal; `started` gets it once it runs.

    Cancelled, it stops the child first: SIGTERM, and after `grace_s` SIGKILL. Raises OSError if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, env=environ, pass_fds=descriptors
    )
    started(process)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await _stop(process, name, grace_s=grace_s)
        raise
    finally:
        forget_process(process.pid)


async def _stop(process: Process, name: str, *, grace_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    # Not asyncio.timeout: in a task that is being cancelled it never times out before Python 3.11.3,
    # https://github.com/python/cpython/issues/102780
    ended = asyncio.create_task(process.wait())
    if not (await asyncio.wait({ended}, timeout=grace_s))[0]:
        _log.warning("process_killed", process=name, grace_s=grace_s)
        process.kill()
        await ended


def describe_exit(code: int) -> str:
    """Return how a process has ended, in words."""
    if code >= 0:
        return f"code {code}"
    known = {member.value: member.name for member in signal.Signals}
    return f"signal {known.get(-code, -code)}"


@contextmanager
def shared_port(address: Address, *, variable: str) -> Iterator[Address]:
    """Hold `address` while the block runs, for processes that listen there with SO_REUSEPORT; yield it with its port.

    The kernel hands connections to listening sockets alone, so this one, which is only bound, gets none. Raises
    `UsageError` that names `variable` if the address cannot be had: the children would try for ever.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            held = stack.enter_context(socket.socket(family, kind, protocol))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(place)
        except OSError as error:
            raise cannot_listen(error, variable=variable, address=address) from error
        yield Address(host=address.host, port=held.getsockname()[1])


_EVERY_S = 0.5


@asynccontextmanager
async def announce_readiness(ready: ReadyCheck) -> AsyncIterator[None]:
    """Say over and over whether this process is ready, while the block runs."""

    async def announce() -> None:
        while True:
            answer = ready()
            readiness = await answer if inspect.isawaitable(answer) else answer
            metrics.READY.set(0 if readiness.not_ready else 1)
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(announce(), name="readiness")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def children_readiness(processes: Processes, *, unready: str) -> Readiness:
    """Return what keeps the children from their work; `unready` says what it means if one announces that it is not."""
    missing = [f"process {name} does not run" for name in processes.not_running]
    if processes.names and not metrics.are_ready(processes.pids):
        missing.append(unready)
    return Readiness(not_ready=tuple(missing))
