"""The two listeners as they are, in front of a transport that keeps everything in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from msgspec import Struct

from broker import Message
from chaos.fuzzing.signing import ALLOW_UNSIGNED, KEYS
from ingest import IngestConfig, IngestServer, KeyRing
from telemetry import AdminListener

PATH_TOKEN = "a-path-token-for-fuzzing"  # noqa: S105 - it protects nothing

_HOST = "127.0.0.1"

#: Smaller than the default: so that bodies that are too large are cheap to send.
MAX_BODY_BYTES = 64 * 1024


class Keeping:
    """A transport that takes everything at once. `kept` counts."""

    def __init__(self) -> None:
        self.is_ready = True
        self.kept = 0

    async def publish(self, message: Message) -> None:
        """Keep it."""
        del message
        self.kept += 1


class Served(Struct, frozen=True, kw_only=True):
    """Where to reach what is served: callbacks without and with a path token, and the admin listener."""

    ingest: int
    ingest_with_token: int
    admin: int
    transport: Keeping


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    """Serve on free ports of the loopback interface."""
    transport = Keeping()
    keys = KeyRing(KEYS)
    async with AsyncExitStack() as stack:
        plain, with_token = [
            await stack.enter_async_context(IngestServer(_config(token), transport, keys))
            for token in (None, PATH_TOKEN)
        ]
        admin = await stack.enter_async_context(AdminListener(_HOST, 0, ready=plain.ready))
        yield Served(ingest=plain.port, ingest_with_token=with_token.port, admin=admin.port, transport=transport)


def _config(path_token: str | None) -> IngestConfig:
    return IngestConfig(
        port=0, max_body_bytes=MAX_BODY_BYTES, allow_unsigned=ALLOW_UNSIGNED - set(KEYS), path_token=path_token
    )


@contextmanager
def served_in_thread() -> Iterator[Served]:
    """Serve in a thread of its own, for those who send from another process."""
    ports: list[Served] = []
    started = threading.Event()
    ended = threading.Event()

    async def serve() -> None:
        async with serving() as served:
            ports.append(served)
            started.set()
            await asyncio.to_thread(ended.wait)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(asyncio.run, serve())
        running.add_done_callback(lambda _: started.set())
        started.wait()
        try:
            if not ports:
                running.result()
            yield ports[0]
        finally:
            ended.set()
        running.result()
