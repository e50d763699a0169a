"""Waiting for what will be so, with a deadline instead of luck."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, deadline_s: float = 10.0) -> None:
    """Return once `condition` holds; raise TimeoutError if it never does."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the condition has no event to wait for
            await asyncio.sleep(0.005)
