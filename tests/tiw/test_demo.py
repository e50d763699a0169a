"""`tiw demo` shows the whole way of callbacks, however slow the machine is."""

import argparse
import asyncio
from typing import Any

import pytest

import tiw.commands.demo
import tiw.pipeline
from simulator import simulate
from store import Store
from tiw.commands.demo import demo
from tiw.commands.migrate import migrate_when_there
from tiw.settings import read_settings


async def test_a_demo_whose_tables_come_only_after_its_callbacks_waits_for_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played = asyncio.Event()

    async def migrate_late(store: Store) -> None:
        await played.wait()
        await migrate_when_there(store)

    async def play(*arguments: Any, **options: Any) -> Any:
        report = await simulate(*arguments, **options)
        played.set()
        return report

    monkeypatch.setattr(tiw.pipeline, "_LOCAL_MIGRATION_S", 0.0)
    monkeypatch.setattr(tiw.pipeline, "migrate_when_there", migrate_late)
    monkeypatch.setattr(tiw.commands.demo, "simulate", play)
    assert await demo(read_settings({}, is_terminal=False), argparse.Namespace(classes=1, seed=1)) == 0
    assert "lost 0" in capsys.readouterr().out
