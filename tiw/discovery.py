"""Find out which consumers users have, without running their code in this process.

Importing a module runs it. What it starts or breaks must not be able to touch ingest, nor another user's consumer: each
file is looked at in a process of its own.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from broker import BUILT_IN_CONSUMERS, ConsumerQueues
from telemetry import metrics
from tiw.children import child_environment, tiw_command
from workers import list_sources

_TIMEOUT_S = 60.0

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


async def discover_consumers(
    environ: Mapping[str, str], *, on_error: Callable[[str, str], None] | None = None
) -> list[CustomConsumer]:
    """Return the consumers that TIW_CONSUMERS in `environ` names, in their order.

    Raises `DiscoveryError` for the first source that cannot be loaded, or whose consumer has a name that is taken;
    with `on_error` such sources are left out and handed to it, each with its sentence.
    """
    variable = environ.get("TIW_CONSUMERS", "")
    sources = list_sources(part.strip() for part in variable.split(",") if part.strip())
    turn = asyncio.Semaphore(_AT_ONCE)

    async def look(source: str) -> list[CustomConsumer] | DiscoveryError:
        async with turn:
            try:
                return await _discover(source, environ)
            except DiscoveryError as error:
                return error

    consumers: list[CustomConsumer] = []
    for source, found in zip(sources, await asyncio.gather(*map(look, sources)), strict=True):
        error = found if isinstance(found, DiscoveryError) else _clash(consumers, found)
        if error is None and isinstance(found, list):
            consumers += found
        elif error is not None and on_error is None:
            raise error
        elif error is not None and on_error is not None:
            on_error(source, str(error))
    return consumers


def _clash(known: list[CustomConsumer], found: list[CustomConsumer]) -> DiscoveryError | None:
    taken = {consumer.consumer: "a built-in consumer" for consumer in BUILT_IN_CONSUMERS}
    taken |= {consumer.queues.consumer: consumer.source for consumer in known}
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
    process = await asyncio.create_subprocess_exec(
        *tiw_command("work", "--describe", "--source", source),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(environ),
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DiscoveryError(f"loading {source} took more than {_TIMEOUT_S:g} s: import nothing slow") from None
    if process.returncode != 0:
        raise DiscoveryError(_sentence(errors.decode(errors="replace").strip()) or f"{source} ended its process")
    # Whatever the modules print on the way stands before the last line.
    sys.stdout.buffer.write(b"".join(output.splitlines(keepends=True)[:-1]))
    found = msgspec.json.decode(output.splitlines()[-1], type=list[_Found])
    return [
        CustomConsumer(queues=ConsumerQueues(consumer=one.name, routing_keys=one.routing_keys), source=source)
        for one in found
    ]


def _sentence(errors: str) -> str:
    """Return what the command said last; all of it where that is no sentence of ours."""
    said = [line for line in errors.splitlines() if line.startswith("tiw: ")]
    return said[-1].removeprefix("tiw: ") if said else errors
