"""The two listeners in front of a transport that keeps everything in memory, with fixed apps, keys and clock."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from msgspec import Struct

from broker import Message, OnPublished
from ingest import IngestConfig, IngestServer, KeyRing
from telemetry import AdminListener

SDK_APP_ID = 1400000001
KEYS = {SDK_APP_ID: ("a key that only fuzzing uses", "the key that comes next"), 1: ("k",)}

#: 0: callbacks without SdkAppId. 1 has keys by now: they count.
ALLOW_UNSIGNED = frozenset({0, 1, 2})

NOW_US = 1_600_000_000_000_000
EXPIRE_TIME = 1_600_000_600


def sign(key: str, expire_time: bytes) -> bytes:
    """Return the right Sign, worked out anew: what is fuzzed does not testify for itself."""
    return hashlib.md5(key.encode() + expire_time, usedforsecurity=False).hexdigest().encode()


def signature(key: str, expire_time: int) -> bytes:
    """Return the three members that make the callback around them authentic."""
    expiry = b"%d" % expire_time
    return b'"SdkAppId":%d,"ExpireTime":%b,"Sign":"%b"' % (SDK_APP_ID, expiry, sign(key, expiry))


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

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Keep it, and say so in the next turn of the loop."""
        del message
        self.kept += 1
        asyncio.get_running_loop().call_soon(on_done, None)
        return True


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
