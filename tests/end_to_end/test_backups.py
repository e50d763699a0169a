"""The backups that docs/deployment.md describes, made beside what runs, and brought back."""

import asyncio
import sqlite3
import subprocess
from pathlib import Path

import msgspec

from broker import ConsumerQueues, EmbeddedTransport, Message
from schemas import decode
from store import (
    KeptEvent,
    Recording,
    Store,
    apply_events,
    check_schema,
    find_recordings,
    find_traces,
    forget_recording,
    migrate,
)
from tests.broker.inbox import Inbox
from tests.servers.postgres import PostgresServer

STARTED = "OnlineRecordStarted"


def _event(timestamp: int, event_type: str = STARTED) -> KeptEvent:
    content = {"EventType": event_type, "Timestamp": timestamp, "SdkAppId": 1, "EventData": {"TaskId": "t"}}
    body = msgspec.json.encode(content)
    decoded = decode(body, received_at_us=1)
    return KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=1, body=body)


def _copy(database: Path, to: Path) -> None:
    """Copy a SQLite file that is in use, as documented."""
    to.parent.mkdir(exist_ok=True)
    connection = sqlite3.connect(database)
    try:
        connection.execute("VACUUM INTO ?", (str(to),))
    finally:
        connection.close()


async def _recording(store: Store) -> Recording:
    await check_schema(store)
    (recording,) = await find_recordings(store, "t")
    return recording


async def test_a_folder_is_copied_while_it_is_in_use_and_nothing_is_lost_between_its_files(tmp_path: Path) -> None:
    queues = ConsumerQueues(consumer="archive", routing_keys=(STARTED,))
    first, second = _event(1), _event(2)
    live, copy = tmp_path / "live", tmp_path / "copy"
    inbox = Inbox()
    async with (
        Store(f"sqlite+aiosqlite:///{live}/store.db") as store,
        EmbeddedTransport(live, consumers=[queues]) as transport,
        transport.subscribe(queues, inbox, prefetch=10),
    ):
        await migrate(store)
        for event in (first, second):
            await transport.publish(
                Message(body=event.body, event_id=event.event_id, routing_key=STARTED, received_at_us=1)
            )
        one, other = await inbox.wait(2)
        await apply_events(store, [first])
        assert await one.ack()
        # In the order of an event's way: what leaves the queue between the two copies is in the second.
        await asyncio.to_thread(_copy, live / "transport.db", copy / "transport.db")
        await apply_events(store, [second])
        assert await other.ack()
        await asyncio.to_thread(_copy, live / "store.db", copy / "store.db")
        whole = await _recording(store)

    again = Inbox()
    async with (
        Store(f"sqlite+aiosqlite:///{copy}/store.db") as store,
        EmbeddedTransport(copy, consumers=[queues]) as transport,
        transport.subscribe(queues, again, prefetch=10),
    ):
        (repeated,) = await again.wait(1)
        assert repeated.message.event_id == second.event_id
        await apply_events(store, [second])
        assert await repeated.ack()
        assert await _recording(store) == whole


async def test_a_dump_of_postgresql_is_brought_back_beside_a_broker_that_delivers_again(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    events = [_event(number) for number in range(5)]
    async with Store(postgres_url) as store:
        await migrate(store)
        await apply_events(store, events[:3])
        dumped = await asyncio.to_thread(_run, postgres, "pg_dump", postgres_url, "-Fc")
        before = await _recording(store)
        # What happens after the dump is gone with the restore, whatever it was.
        await apply_events(store, events[3:])
        after = await _recording(store)
        (traces,) = await find_traces(store, "t")
        await forget_recording(store, "t", traces)

    await asyncio.to_thread(
        _run, postgres, "pg_restore", postgres_url, "--clean", "--if-exists", "--exit-on-error", stdin=dumped
    )
    async with Store(postgres_url) as store:
        assert await _recording(store) == before
        # The broker delivers what was not acknowledged, and some of what was applied already.
        await apply_events(store, events[2:])
        assert await _recording(store) == after
        await migrate(store)


def _run(postgres: PostgresServer, program: str, url: str, *arguments: str, stdin: bytes = b"") -> bytes:
    connection = ["-h127.0.0.1", f"-p{postgres.port}", "-Utiw", f"-d{url.rpartition('/')[2]}"]
    return subprocess.run(
        [postgres.binaries / program, *connection, *arguments], input=stdin, check=True, capture_output=True, timeout=60
    ).stdout
