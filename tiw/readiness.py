"""Readiness across processes: each child says whether it is ready, the parent asks all.

They speak through the metrics they share anyway.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from telemetry import Readiness, metrics
from telemetry.admin import ReadyCheck
from tiw.processes import Processes

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
    if metrics.least_ready() != 1:
        missing.append(unready)
    return Readiness(not_ready=tuple(missing))
