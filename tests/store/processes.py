"""Starting several processes at the same moment."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

DEADLINE_S = 60.0


async def run_at_once(verb: str, url: str, count: int) -> None:
    """Let `count` processes do `verb` (see `process.py`) to a store at the same moment; all must succeed."""
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE_S):
        processes = [await _start(stack, verb, url, seed, count) for seed in range(count)]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    codes = [process.returncode for process in processes]
    assert codes == [0] * count, b"\n".join(stderr for _, stderr in outputs).decode()


@asynccontextmanager
async def started(verb: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Let one process do `verb` while the block runs; its standard input and output are pipes."""
    async with AsyncExitStack() as stack:
        process = await _start(stack, verb, url, 0, 1)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        yield process


async def _start(stack: AsyncExitStack, verb: str, url: str, seed: int, count: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.store.process",
        verb,
        url,
        str(seed),
        str(count),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stack.push_async_callback(_end, process)
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
