"""Readiness across processes: each child says whether it is ready, the parent asks all.

They speak through the metrics they share anyway.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from telemetry import metrics
from telemetry.admin import ReadyCheck

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


def ready_everywhere() -> bool:
    """Say whether every process that announces its readiness is ready, and there is one."""
    return metrics.least_ready() == 1
