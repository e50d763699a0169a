from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from schemas import decode
from store import KeptEvent, Store, apply_events, list_events, migrate
from telemetry import metrics
from workers.worker import _prune


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        await migrate(store)
        body = msgspec.json.encode({"EventType": "Other", "Timestamp": 1, "SdkAppId": 1, "EventData": {}})
        decoded = decode(body, received_at_us=1)
        await apply_events(
            store, [KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=1, body=body)]
        )
        yield store


async def test_events_are_kept_unless_a_retention_is_set(store: Store) -> None:
    counter = metrics.PRUNED.labels("events")
    before = counter._value.get()
    await _prune(store, retention_days=0)
    assert len(await list_events(store)) == 1
    await _prune(store, retention_days=1)
    assert await list_events(store) == []
    assert counter._value.get() == before + 1
