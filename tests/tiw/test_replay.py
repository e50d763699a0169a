"""What is replayed is what it was, its source included."""

import argparse
from pathlib import Path

from broker import BUILT_IN_CONSUMERS, EmbeddedTransport
from schemas import decode
from store import KeptEvent, Store, apply_events, migrate
from tests.broker.inbox import Inbox
from tiw.commands.events import replay
from tiw.settings import Settings

BODY = b'{"EventType":"OnlineRecordFinished","Timestamp":1,"SdkAppId":1,"EventData":{"TaskId":"task"}}'


async def test_a_kept_event_comes_again_with_its_source(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/store.db", data_dir=tmp_path)
    args = argparse.Namespace(
        consumer="finished", since=None, task=None, event_id=None, dry_run=False, rate=1000, json=True
    )
    decoded = decode(BODY, received_at_us=1)
    kept = KeptEvent(
        event=decoded.event, event_id=decoded.event_id, received_at_us=1, body=BODY, source="reconcile", verified=True
    )
    inbox = Inbox()
    (finished,) = (queues for queues in BUILT_IN_CONSUMERS if queues.consumer == "finished")
    async with Store(settings.database_url) as store, EmbeddedTransport(tmp_path) as transport:
        await migrate(store)
        await apply_events(store, [kept])
        await replay(settings, args)
        async with transport.subscribe(finished, inbox, prefetch=1):
            (delivery,) = await inbox.wait(1)
    message = delivery.message
    assert (message.event_id, message.source, message.waiting_since_us) == (decoded.event_id, "reconcile", None)
