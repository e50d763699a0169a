"""The fakes of the vendor in a thread of their own, for tests that run processes."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from simulator import VendorApi

Server = TypeVar("Server", bound=AbstractAsyncContextManager[Any])


@contextmanager
def in_thread(server: Server) -> Iterator[Server]:
    """Let a server answer while the block runs. What it knows and how it fails may be changed meanwhile."""
    started = threading.Event()
    ended = threading.Event()

    async def serve() -> None:
        async with server:
            started.set()
            await asyncio.to_thread(ended.wait)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, serve())
        running.add_done_callback(lambda _: started.set())
        started.wait()
        try:
            if running.done():
                running.result()
            yield server
        finally:
            ended.set()
            running.result()


def settings_for(api: VendorApi) -> dict[str, str]:
    """Return the settings of a process that asks this API."""
    return {
        "TIW_VENDOR_ENDPOINT": api.url,
        "TIW_VENDOR_SITE": api.vendor.site.value,
        "TIW_VENDOR_SECRET_ID": api.secret_id,
        "TIW_VENDOR_SECRET_KEY": api.secret_key,
    }
