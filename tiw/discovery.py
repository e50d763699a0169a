"""Find out which consumers users have, without running their code in this process, and keep them running.

Importing a module runs it. What it starts or breaks must not be able to touch ingest, nor another user's consumer: each
file is looked at in a process of its own.
"""

import asyncio
import logging
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import msgspec
import structlog
from msgspec import Struct

from broker import BUILT_IN_CONSUMERS, ConsumerQueues
from telemetry import metrics
from tiw.children import Processes, child_environment, consumer_command, tiw_command
from workers import list_sources

_TIMEOUT_S = 60.0

#: What the line begins with in which a process describes its consumers.
DESCRIPTION = b"tiw-consumers: "

#: Looked at side by side.
_AT_ONCE = 4


class DiscoveryError(Exception):
    """Raised when users' consumers cannot be loaded; the text says what to change."""


class CustomConsumer(Struct, frozen=True, kw_only=True):
    """A consumer of a user: its queues, and the file or module that defines it."""

    queues: ConsumerQueues
    source: str


class _Found(Struct, frozen=True, kw_only=True):
    name: str
    routing_keys: tuple[str, ...]


#: How often it is looked whether there is a new source, or one that cannot be loaded has changed.
_LOOK_EVERY_S = 1.0

#: A source that cannot be loaded is tried again after this long, doubled each time, up to the last.
_FIRST_PAUSE_S = 2.0
_LAST_PAUSE_S = 60.0

_log = structlog.get_logger()


class CustomConsumers:
    """Keeps every consumer that TIW_CONSUMERS in `environ` names in a process of its own; an async context manager.

    Each source is loaded by itself. One that cannot be loaded is logged and tried again, with growing pauses and when
    it changes; a file that appears in a folder is loaded, too. Nobody waits for any of this. `only`: the consumers of
    these names. `reload`: consumers are stopped and loaded anew when a file of theirs, or one beside it, changes.
    """

    def __init__(
        self, processes: Processes, environ: Mapping[str, str], *, only: Collection[str] = (), reload: bool = False
    ) -> None:
        self._processes = processes
        self._environ = environ
        self._only = only
        self._reload = reload
        #: The consumers of each source; None while it is not loaded, and then why not, once that is known.
        self._consumers: dict[str, list[str] | None] = {}
        self._errors: dict[str, str] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def not_ready(self) -> tuple[str, ...]:
        """What keeps a process with these consumers from being ready, as sentences."""
        return tuple(
            f"{source} is not loaded" + (f": {error}" if (error := self._errors.get(source)) else "")
            for source, names in self._consumers.items()
            if names is None
        )

    async def __aenter__(self) -> Self:
        self._begin_with_new()
        if not self._consumers:
            _log.info("idle", reason="TIW_CONSUMERS names no consumer yet", sources=_variable(self._environ))
        self._tasks.add(asyncio.create_task(self._look_for_new(), name="consumers of users"))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _look_for_new(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._begin_with_new()

    def _begin_with_new(self) -> None:
        for source in _sources(self._environ):
            if source not in self._consumers:
                self._consumers[source] = None
                self._tasks.add(asyncio.create_task(self._keep_loaded(source), name=f"consumers of {source}"))

    async def _keep_loaded(self, source: str) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            version = _version(source)
            last_error = self._errors.get(source, "")
            error = self._errors[source] = await self._load(source)
            if not error and not self._reload:
                return
            if error:
                level = logging.DEBUG if error == last_error else logging.ERROR
                _log.log(level, "consumers_not_loaded", source=source, error=error, again_in_s=pause_s)
            if await _changes(source, version, within_s=pause_s if error else None):
                pause_s = _FIRST_PAUSE_S
            else:
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _load(self, source: str) -> str:
        """Stop the consumers of a source and start those that are in it now; return why not, if that cannot be done."""
        names, self._consumers[source] = self._consumers[source], None
        for name in names or ():
            await self._processes.drop(name)
        try:
            async with self._turn:
                found = await _discover(source, self._environ)
        except DiscoveryError as error:
            return str(error)
        except OSError as error:
            return f"no process can be started for it: {error.strerror}"
        running = {name: other for other, names in self._consumers.items() for name in names or ()}
        clash = _clash(running, found)
        if clash is not None:
            return str(clash)
        started = [one.queues.consumer for one in found if not self._only or one.queues.consumer in self._only]
        for name in started:
            self._processes.keep(name, consumer_command(name, source))
        self._consumers[source] = started
        return ""


async def _changes(source: str, version: object, *, within_s: float | None) -> bool:
    """Return True once a source is not of `version` any more, or False after `within_s`, if that is given."""
    end_s = math.inf if within_s is None else time.monotonic() + within_s
    while time.monotonic() < end_s:
        await asyncio.sleep(min(_LOOK_EVERY_S, end_s - time.monotonic()))
        if _version(source) != version:
            return True
    return False


def _variable(environ: Mapping[str, str]) -> list[str]:
    return [part.strip() for part in environ.get("TIW_CONSUMERS", "").split(",") if part.strip()]


def _sources(environ: Mapping[str, str]) -> list[str]:
    return list_sources(_variable(environ))


def _version(source: str) -> object:
    """Return what changes when a file, or a Python file beside it, does; None for a module."""
    if not source.endswith(".py"):
        return None
    files = Path(source).parent.glob("*.py")
    versions = []
    for file in sorted(files):
        with suppress(OSError):
            status = file.stat()
            versions.append((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return versions


async def discover_consumers(
    environ: Mapping[str, str], *, on_error: Callable[[str, str], None] | None = None
) -> list[CustomConsumer]:
    """Return the consumers that TIW_CONSUMERS in `environ` names, in their order.

    Raises `DiscoveryError` for the first source that cannot be loaded, or whose consumer has a name that is taken;
    with `on_error` such sources are left out and handed to it, each with its sentence.
    """
    sources = _sources(environ)
    turn = asyncio.Semaphore(_AT_ONCE)

    async def look(source: str) -> list[CustomConsumer] | DiscoveryError:
        async with turn:
            try:
                return await _discover(source, environ)
            except DiscoveryError as error:
                return error

    consumers: list[CustomConsumer] = []
    for source, found in zip(sources, await asyncio.gather(*map(look, sources)), strict=True):
        known = {consumer.queues.consumer: consumer.source for consumer in consumers}
        error = found if isinstance(found, DiscoveryError) else _clash(known, found)
        if error is None and isinstance(found, list):
            consumers += found
        elif error is not None and on_error is None:
            raise error
        elif error is not None and on_error is not None:
            on_error(source, str(error))
    return consumers


def _clash(known: Mapping[str, str], found: list[CustomConsumer]) -> DiscoveryError | None:
    """Return an error if a consumer of `found` has a name that is taken; `known` are the names of others' consumers."""
    taken = {consumer.consumer: "a built-in consumer" for consumer in BUILT_IN_CONSUMERS} | dict(known)
    for consumer in found:
        name = consumer.queues.consumer
        if name in taken:
            return DiscoveryError(
                f"{consumer.source}: {taken[name]} is called {name!r} too: rename one of the functions"
            )
    return None


async def _discover(source: str, environ: Mapping[str, str]) -> list[CustomConsumer]:
    # Outside the metrics that the consumers' own processes share: there it would stand as one that is never ready.
    environ = {name: value for name, value in environ.items() if name != metrics.MULTIPROCESS_VARIABLE}
    # Into files: a process that the code has started, and that lives on, would keep pipes open.
    with _scratch_file() as output, _scratch_file() as errors:
        process = await asyncio.create_subprocess_exec(
            *tiw_command("work", "--describe", "--source", source),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=child_environment(environ),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                code = await process.wait()
        except TimeoutError:
            raise DiscoveryError(f"loading {source} took more than {_TIMEOUT_S:g} s: import nothing slow") from None
        finally:
            await _end(process)
        lines, said = _content(output).splitlines(keepends=True), _content(errors).decode(errors="replace").strip()
    if code != 0:
        raise DiscoveryError(_sentence(said) or f"{source} ended its process")
    # Whatever the modules print stands around that line: exit handlers print behind it.
    at = max((at for at, line in enumerate(lines) if line.startswith(DESCRIPTION)), default=None)
    if at is None:
        raise DiscoveryError(f"{source} ended its process")
    sys.stdout.buffer.write(b"".join(lines[:at] + lines[at + 1 :]))
    try:
        found = msgspec.json.decode(lines[at].removeprefix(DESCRIPTION), type=list[_Found])
    except msgspec.DecodeError:
        raise DiscoveryError(f"{source} prints while it is described: its output cannot be read") from None
    if not found and source in _variable(environ):
        raise DiscoveryError(f"{source} defines no consumer: put @consumer on a function in it")
    return [
        CustomConsumer(queues=ConsumerQueues(consumer=one.name, routing_keys=one.routing_keys), source=source)
        for one in found
    ]


def _scratch_file() -> IO[bytes]:
    # In memory where that can be: /tmp may be read-only.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("tiw-discovery"), "w+b")
    return tempfile.TemporaryFile()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process with all that its code has started: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _sentence(errors: str) -> str:
    """Return what the command said last; all of it where that is no sentence of ours."""
    said = [line for line in errors.splitlines() if line.startswith("tiw: ")]
    return said[-1].removeprefix("tiw: ") if said else errors
