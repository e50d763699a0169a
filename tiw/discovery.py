"""Find out which consumers users have, without running their code in this process.

Importing a module runs it. What it starts or breaks must not be able to touch ingest.
"""

import asyncio
import sys
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from broker import ConsumerQueues
from tiw.processes import child_environment, tiw_command

_TIMEOUT_S = 60.0


class DiscoveryError(Exception):
    """Raised when users' consumers cannot be loaded; the text says what to change."""


class _Found(Struct, frozen=True, kw_only=True):
    name: str
    routing_keys: tuple[str, ...]


async def discover_consumers(environ: Mapping[str, str]) -> list[ConsumerQueues]:
    """Return the consumers that TIW_CONSUMERS in `environ` names, in their order. Raises `DiscoveryError`."""
    if not environ.get("TIW_CONSUMERS"):
        return []
    process = await asyncio.create_subprocess_exec(
        *tiw_command("work", "--describe"),
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
        raise DiscoveryError(f"loading TIW_CONSUMERS took more than {_TIMEOUT_S:g} s: import nothing slow") from None
    if process.returncode != 0:
        raise DiscoveryError(_sentence(errors.decode(errors="replace").strip()))
    # Whatever the modules print on the way stands before the last line.
    sys.stdout.buffer.write(b"".join(output.splitlines(keepends=True)[:-1]))
    found = msgspec.json.decode(output.splitlines()[-1], type=list[_Found])
    return [ConsumerQueues(consumer=consumer.name, routing_keys=consumer.routing_keys) for consumer in found]


def _sentence(errors: str) -> str:
    """Return what the command said last; all of it where that is no sentence of ours."""
    said = [line for line in errors.splitlines() if line.startswith("tiw: ")]
    return said[-1].removeprefix("tiw: ") if said else errors
