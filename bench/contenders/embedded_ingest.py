"""The ingest of `tiw up` without its consumers: each callback is fsynced before it is answered.

There is no command for it, because nothing would handle what it keeps. It reads TIW_HTTP, TIW_CALLBACK_KEYS and
TIW_DATA_DIR as `tiw` does.
"""

import asyncio
import contextlib
import os
import signal

import uvloop

from broker import EmbeddedTransport
from ingest import IngestServer, KeyRing, parse_keys
from tiw.opening import ingest_config
from tiw.process import settle
from tiw.settings import read_settings


async def main() -> None:
    """Take callbacks until SIGTERM."""
    settings = read_settings(os.environ, is_terminal=False)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with contextlib.AsyncExitStack() as stack:
        transport = await stack.enter_async_context(EmbeddedTransport(settings.data_dir))
        keys = await stack.enter_async_context(KeyRing(parse_keys(settings.callback_keys or "{}")))
        server = await stack.enter_async_context(IngestServer(ingest_config(settings), transport, keys))
        settle()
        await stopped.wait()
        await server.drain()


if __name__ == "__main__":
    uvloop.run(main())
