"""Dead letters of a consumer that is no more hold up nobody else's."""

import argparse
from pathlib import Path

import pytest
from msgspec import structs

from broker import EmbeddedTransport
from store import DeadLetter, Store, keep_dead_letters, list_dead_letters, migrate
from tiw.commands.dead_letters import replay, show
from tiw.settings import FailedError, Settings

LETTER = DeadLetter(
    consumer="started",
    event_id="a" * 32,
    event_type="OnlineRecordStarted",
    sdk_app_id=1400000001,
    attempts=8,
    reason="ValueError: no bucket",
    first_failed_at_us=1,
    last_failed_at_us=2,
    body=b"{}",
    routing_key="OnlineRecordStarted",
    received_at_us=1,
)


async def test_a_replay_passes_over_consumers_without_a_queue_and_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)
    args = argparse.Namespace(consumer=None, event_id=None, reason=None, dry_run=False, json=False)
    async with Store(settings.database_url) as store:
        await migrate(store)
        await keep_dead_letters(store, [structs.replace(LETTER, consumer="gone"), LETTER])

        with pytest.raises(FailedError, match="those of gone are left"):
            await replay(settings, args)

        assert [letter.consumer for letter in await list_dead_letters(store)] == ["gone"]
    assert capsys.readouterr().out == "1 dead letters replayed\n"
    async with EmbeddedTransport(tmp_path) as transport:
        (state,) = await transport.inspect(["started"])
    assert state.ready == 1


async def test_one_is_shown_with_its_traceback_line_by_line_and_nothing_that_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)
    args = argparse.Namespace(consumer="started", event_id=None, reason=None, replayed=False, json=False)
    traceback = 'Traceback (most recent call last):\n  File "archive.py", line 3, in archive\nValueError: \x1b[31mred'
    async with Store(settings.database_url) as store:
        await migrate(store)
        await keep_dead_letters(store, [structs.replace(LETTER, traceback=traceback)])
        await show(settings, args)
        shown = capsys.readouterr().out
        await keep_dead_letters(store, [structs.replace(LETTER, last_failed_at_us=3, reason="worker crashed")])
        await show(settings, args)
    assert (
        "  traceback\n"
        "    Traceback (most recent call last):\n"
        '      File "archive.py", line 3, in archive\n'
        "    ValueError: \N{REPLACEMENT CHARACTER}[31mred\n" in shown
    )
    crashed = capsys.readouterr().out
    assert "worker crashed" in crashed
    assert "traceback" not in crashed
