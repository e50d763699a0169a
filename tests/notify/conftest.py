"""Sinks on loopback, for every test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from notify import delivery
from store import Store
from tests.notify.sinks import MailSink, WebSink, run_mail_sink, run_web_sink
from tests.servers.migrated import copy_migrated_sqlite


@pytest.fixture
async def web_sink() -> AsyncIterator[WebSink]:
    """Give a web server, robots included."""
    async with run_web_sink() as sink:
        yield sink


@pytest.fixture
async def mail_sink() -> AsyncIterator[MailSink]:
    """Give a mail server."""
    async with run_mail_sink() as sink:
        yield sink


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Give an empty SQLite store with its tables."""
    async with Store(copy_migrated_sqlite(tmp_path / "store.db")) as store:
        yield store


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let notices of other processes be found at once, and pauses be short."""
    monkeypatch.setattr(delivery, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(delivery, "_STORE_AGAIN_S", 0.1)
