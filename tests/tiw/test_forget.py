"""`tiw forget`: what it deletes, and when it asks back."""

import argparse
import json
from pathlib import Path

import msgspec
import pytest

from schemas import decode
from store import KeptEvent, Store, apply_events, find_recordings, migrate
from tiw.commands.forget import forget
from tiw.settings import FailedError, Settings, UsageError


def _event(sdk_app_id: int) -> KeptEvent:
    content = {"EventType": "OnlineRecordStarted", "Timestamp": 1, "EventData": {"TaskId": "t"}}
    body = msgspec.json.encode({**content, "SdkAppId": sdk_app_id})
    decoded = decode(body, received_at_us=1)
    return KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=1, body=body)


async def test_a_recording_is_forgotten_once_it_is_clear_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)
    args = argparse.Namespace(task="t", app=None, dry_run=True, json=True)
    async with Store(settings.database_url) as store:
        await migrate(store)
        await apply_events(store, [_event(1), _event(2)])
        with pytest.raises(UsageError, match="--app from 1, 2"):
            await forget(settings, args)
        args.app = 3
        with pytest.raises(FailedError, match="nothing is known"):
            await forget(settings, args)

        args.app = 2
        assert await forget(settings, args) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["recordings"], said["events"], said["dry_run"]) == (1, 1, True)
        assert any("backups" in place for place in said["not_reached"])
        assert len(await find_recordings(store, "t")) == 2

        args.dry_run = args.json = False
        assert await forget(settings, args) == 0
        assert "deleted" in capsys.readouterr().out
        assert [recording.sdk_app_id for recording in await find_recordings(store, "t")] == [1]
