"""Pauses of a spool that are short enough for tests, and nothing unforeseen."""

from collections.abc import Iterator

import pytest
import structlog

from ingest.spool import drain
from ingest.spool import spool as spool_module


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "TURN_S", 0.005)
    monkeypatch.setattr(spool_module, "HOUSEKEEPING_S", 0.02)
    monkeypatch.setattr(drain, "AWAY_DELAY_S", 0.02)
    monkeypatch.setattr(drain, "REFUSAL_DELAYS_S", (0.01, 0.02, 0.03))


@pytest.fixture(autouse=True)
def _nothing_unforeseen() -> Iterator[None]:
    """Fail a test in which the spool met an error that nobody thought of: it would only log it and go on."""
    with structlog.testing.capture_logs() as logged:
        yield
    assert "spool_failed" not in {line["event"] for line in logged}
