"""A spool in front of a transport that remembers, with pauses short enough for tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from ingest import Spool
from ingest.spool import drain
from ingest.spool import spool as spool_module
from tests.ingest.recording_transport import RecordingTransport


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_TURN_S", 0.005)
    monkeypatch.setattr(spool_module, "_HOUSEKEEPING_S", 0.02)
    monkeypatch.setattr(drain, "AWAY_DELAY_S", 0.02)
    monkeypatch.setattr(drain, "REFUSAL_DELAYS_S", (0.01, 0.02, 0.03))


@pytest.fixture(autouse=True)
def _nothing_unforeseen() -> Iterator[None]:
    """Fail a test in which the spool met an error that nobody thought of: it would only log it and go on."""
    with structlog.testing.capture_logs() as logged:
        yield
    assert "spool_failed" not in {line["event"] for line in logged}


@pytest.fixture
def transport() -> RecordingTransport:
    return RecordingTransport()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def spool(folder: Path, transport: RecordingTransport) -> AsyncIterator[Spool]:
    async with Spool(folder, transport) as spool:
        yield spool
