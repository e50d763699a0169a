"""A publish that begins at once, for transports of tests that know coroutines alone."""

import asyncio
from collections.abc import Coroutine

from broker import BrokerError, OnPublished

_running: set[asyncio.Task[None]] = set()


def begin_in_task(publishing: Coroutine[object, object, None], on_done: OnPublished) -> bool:
    """Run `publishing` in a task, and tell `on_done` how it ended."""

    async def run() -> None:
        error = None
        try:
            await publishing
        except BrokerError as raised:
            error = raised
        on_done(error)

    task = asyncio.create_task(run())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return True
