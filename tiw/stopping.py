"""Wait until this process is asked to stop."""

import asyncio
import os
import signal
import sys


async def until_stopped(*, with_parent: bool = False) -> None:
    """Return at the first SIGTERM or SIGINT; `with_parent`: also when the parent's pipe on standard input ends.

    A second SIGINT ends the process at once, as an impatient person means it; not a child, which gets the terminal's
    SIGINT and its parent's SIGTERM for one and the same wish.
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
        parent.add_done_callback(lambda _: stopped.set())
    await stopped.wait()
