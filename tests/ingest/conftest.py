"""A server in front of a transport that remembers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ingest import IngestConfig, IngestServer, KeyRing, Spool
from tests.ingest.callback_bodies import KEYS
from tests.ingest.recording_transport import RecordingTransport

Serve = Callable[..., Awaitable[IngestServer]]


@pytest.fixture
async def transport() -> RecordingTransport:
    return RecordingTransport()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def spool(folder: Path, transport: RecordingTransport) -> AsyncIterator[Spool]:
    """Open a spool in front of the transport."""
    async with Spool(folder, transport) as spool:
        yield spool
        transport.gate.set()


@pytest.fixture
async def serve(transport: RecordingTransport) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(keys: KeyRing | None = None, **settings: object) -> IngestServer:
            config = IngestConfig(port=0, **settings)  # type: ignore[arg-type]  # whatever the test says
            return await stack.enter_async_context(IngestServer(config, transport, keys or KeyRing(KEYS)))

        yield start
        transport.gate.set()
