"""A process of the command line, from its start to its exit code: loop, signals, limits, locks.

Exit codes: 0 done, 1 failed or absent, 2 usage or configuration: one clear sentence, no traceback. Each command imports
what it needs and no more: an ingest node has no use for a database.
"""

import argparse
import asyncio
import ctypes
import errno
import fcntl
import gc
import importlib
import inspect
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tiw.settings import FailedError, Settings, SettingsError, UsageError, read_settings


def has_uvloop() -> bool:
    """Say whether uvloop is installed; on some systems and interpreters it cannot be."""
    return find_spec("uvloop") is not None


def run_loop(command: Coroutine[Any, Any, int]) -> int:
    """Run `command` to its end on the best loop there is."""
    if not has_uvloop():
        return asyncio.run(command)
    import uvloop  # noqa: PLC0415 - see above

    return uvloop.run(command)


FAILED = 1
MISUSED = 2

#: Without a name of a file these concern what is printed.
_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT})

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def run(parsed: argparse.Namespace) -> int:
    """Run the command that the parser of `tiw.parser` has found, and return its exit code."""
    try:
        # Until now it ends the process at once; see `tiw.__main__`. What is begun from here on is to be left in order.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        settings = read_settings(os.environ, is_terminal=sys.stderr.isatty())
        with _shared_metrics(settings) if _has_children(parsed, settings) else nullcontext():
            exit_code = _command(settings, parsed)
            # What cannot be written must be found while it can still be said.
            sys.stdout.flush()
            return exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `tiw events list | head`: the reader has seen enough.
        _drop_output()
        return FAILED
    except Exception as error:
        code = _known(error)
        if code is None and isinstance(error, OSError) and error.strerror:
            # A path that was asked for; what a file of ours meets has words of its own.
            where = error.filename
            if where is None and error.errno in _CANNOT_WRITE:
                where = "standard output"
                _drop_output()
            return _say(f"{where}: {error.strerror}" if where else error.strerror, FAILED)
        if code is None:
            raise
        return _say(str(error), code)


def _drop_output() -> None:
    """Let what is still to be written go nowhere: the interpreter would try again at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command(settings: Settings, parsed: argparse.Namespace) -> int:
    # Imported here: metrics decide on their first import whether they are shared.
    from telemetry import configure_logging  # noqa: PLC0415

    # Standard output is for what was asked for. Commands that run until they are stopped say more.
    configure_logging(settings.log_format, level=logging.WARNING)
    module, _, function = parsed.runs.partition(":")
    command = getattr(importlib.import_module(f"tiw.commands.{module}"), function)
    gc.enable()
    code = command(settings, parsed)
    return int(run_loop(code) if inspect.iscoroutine(code) else code)


@contextmanager
def _shared_metrics(settings: Settings) -> Iterator[None]:
    """Make this process and the children it starts meanwhile share their metrics, so that one listener can sum them.

    prometheus-client decides when it is first imported whether values live in memory or in files: the folder must be
    in the environment before that. So it is entered before a command's module is imported, and nothing that this module
    imports at its top may import metrics.
    """
    try:
        folder = tempfile.mkdtemp(prefix="tiw-metrics-")
    except OSError:
        # /tmp is read-only, or full. The data folder cannot be: without it nothing works.
        folder = _folder_in(settings.data_dir)
    os.environ[_METRICS_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[_METRICS_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)


def _folder_in(data_dir: Path) -> str:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return tempfile.mkdtemp(prefix="metrics-", dir=data_dir)
    except OSError as error:
        raise UsageError(
            f"neither the folder for temporary files nor {data_dir} can be written ({error.strerror}): set TIW_DATA_DIR"
        ) from error


def _has_children(parsed: argparse.Namespace, settings: Settings) -> bool:
    """Say whether the command may start processes of ours that serve metrics through this one."""
    if getattr(parsed, "child", False) or getattr(parsed, "describe", False):
        return False
    if parsed.runs == "ingest:ingest":
        return bool(parsed.processes > 1)
    return parsed.runs in ("up:up", "work:work") and bool(settings.consumers)


def _known(error: Exception) -> int | None:
    """Return the exit code of an error whose text is made for a person; None for a fault of ours."""
    if isinstance(error, SettingsError | UsageError):
        return MISUSED
    if isinstance(error, FailedError):
        return FAILED
    # Imported here: by now the command has imported what it needs.
    from broker import BrokerError  # noqa: PLC0415
    from ingest import KeysError, RejectedFileError, SpoolError, UnsafeHTTPError  # noqa: PLC0415
    from store import StoreError  # noqa: PLC0415
    from tiw.discovery import DiscoveryError  # noqa: PLC0415
    from workers import WorkersError  # noqa: PLC0415

    if isinstance(error, WorkersError | DiscoveryError | KeysError | SpoolError | UnsafeHTTPError):
        return MISUSED
    return FAILED if isinstance(error, BrokerError | StoreError | RejectedFileError) else None


def _say(sentence: str, code: int) -> int:
    print(f"tiw: {sentence}", file=sys.stderr)
    return code


def _log() -> Any:
    # Imported here: structlog is slow to import, and many commands say nothing.
    import structlog  # noqa: PLC0415

    return structlog.get_logger()


#: Parents that are watched; a task that nobody holds may be collected before it ends.
_watched: set["asyncio.Task[bytes]"] = set()


async def stop_requests(*, with_parent: bool = False) -> asyncio.Event:
    """Return an event that is set at the first SIGTERM or SIGINT from now on.

    SIGHUP ends nothing from now on.

    To be called before anything says that the process runs: until then a signal ends it at once, with nothing finished.
    `with_parent`: the end of the parent's pipe on standard input sets it, too. A second SIGINT ends the process at
    once, as an impatient person means it; not a child, which gets the terminal's SIGINT and its parent's SIGTERM for
    one and the same wish.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def interrupt() -> None:
        if stopped.is_set() and not with_parent:
            os._exit(130)
        stopped.set()

    def hang_up() -> None:
        # A closed terminal, or `systemctl reload`: no reason to end.
        _log().info("hangup_ignored", note="the file of callback keys is read again whenever it changes")

    _let_forks_be_stopped()
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    if with_parent:
        reader = asyncio.StreamReader()
        # Away from where whatever a handler starts would inherit it, and keep it.
        pipe = os.fdopen(os.dup(0), "rb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        parent = asyncio.create_task(reader.read())
        _watched.add(parent)
        parent.add_done_callback(lambda _: stopped.set())
    return stopped


_STOPPING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})


def _let_forks_be_stopped() -> None:
    """Let signals do to a process that a handler forks what they do to any.

    It would have this process's handlers, which do nothing without its loop: it could not be ended. And it would have
    this loop's pipe, through which its SIGTERM would stop this process.
    """
    mask = threading.local()

    def before() -> None:
        # Whoever stops it at once must not be heard through that pipe either.
        mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)

    def after_in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    def after_in_child() -> None:
        signal.set_wakeup_fd(-1)
        for number in _STOPPING:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask.before)

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)


async def stopped_or_failed(stopped: asyncio.Event, work: Awaitable[None]) -> None:
    """Return once `stopped` is set, or when `work` ends, raising what it raises."""
    stop = asyncio.ensure_future(stopped.wait())
    end = asyncio.ensure_future(work)
    await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if end.done():
        end.result()
    else:
        end.cancel()


#: Enough for every connection that an ingest process takes; what asks for all there is can be slow with it.
WANTED = 16_384


def raise_descriptor_limit() -> int:
    """Let this process open up to `WANTED` files, or as many as it may; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the kernel lets go of it when the process ends, however it does.

    Raises `UsageError` if another process holds it, or if the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"the data folder {folder} cannot be used ({error.strerror}): set TIW_DATA_DIR") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(f"another `tiw up` uses {folder}: stop it, or set TIW_DATA_DIR for this one") from error
    finally:
        os.close(descriptor)


#: New objects until the young ones are searched for cycles. The default of 700 is reached by a handful of callbacks in
#: flight, none of which is a cycle; what gathers meanwhile are some megabytes at most.
THRESHOLD = 20_000


def settle() -> None:
    """Take everything that is there now out of the search for cycles, and search less often from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)


#: mallopt(3). Blocks of so many bytes are mapped one by one, as they are at first, and a heap's free end goes back.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_RETURNED_BYTES = 64 * 1024


def return_freed_memory() -> None:
    """Let freed memory go back to the system, as far as the C library can be told so.

    Who moves large files frees as many bytes as come. Left alone, glibc raises its thresholds at the first large block
    that is freed, and keeps 10 to 20 MB of holes on the heaps of several threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _RETURNED_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
