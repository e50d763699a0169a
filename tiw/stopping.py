"""Notice that this process is asked to stop."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable

#: Parents that are watched; a task that nobody holds may be collected before it ends.
_watched: set["asyncio.Task[bytes]"] = set()


async def stop_requests(*, with_parent: bool = False) -> asyncio.Event:
    """Return an event that is set at the first SIGTERM or SIGINT from now on.

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

    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    if with_parent:
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        parent = asyncio.create_task(reader.read())
        _watched.add(parent)
        parent.add_done_callback(lambda _: stopped.set())
    return stopped


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
