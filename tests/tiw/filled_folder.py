"""A data folder in which there is something to show of everything."""

import json
import time
from pathlib import Path

from msgspec import structs

from broker import Message
from broker.embedded.transport import EmbeddedTransport
from ingest.rejected import Rejected, keep_rejected
from ingest.spool.files import WAITING, SpoolFolder
from ingest.spool.format import Record, render_record
from store import (
    ArchivePlan,
    Change,
    DeadLetter,
    Notice,
    PlannedFile,
    Store,
    UnaccountedRoom,
    add_notices,
    apply_events,
    keep_change,
    keep_dead_letters,
    keep_unaccounted,
    migrate,
    plan_archive,
)
from tests.store.classes import callback, keep

TASK = "rtc30dje7c2g0cdc2v0o"
EVENT = "0123456789abcdef0123456789abcdef"
APP = 1400000001
STARTED = keep(callback("OnlineRecordStarted", sdk_app_id=APP, TaskId=TASK), received_at_us=1).event_id


async def fill(folder: Path) -> None:
    """Put something into each of its listings; the second dead letter is of a consumer that has a queue."""
    now_us = time.time_ns() // 1000
    started = keep(callback("OnlineRecordStarted", sdk_app_id=APP, TaskId=TASK), received_at_us=now_us)
    error = {"Code": "FailedOperation.Record", "Message": "the RecordUserSig expired"}
    failed = callback("OnlineRecordFinished", sdk_app_id=APP, TaskId=f"{TASK[:-1]}1", Error=error)
    body = json.dumps(callback("OnlineRecordFinished", sdk_app_id=APP, TaskId=TASK)).encode()
    message = Message(body=body, event_id=EVENT, routing_key="OnlineRecordFinished", received_at_us=now_us)
    async with Store(f"sqlite+aiosqlite:///{folder}/store.db") as store:
        await migrate(store)
        await apply_events(store, [started, keep(failed, received_at_us=now_us)])
        letter = DeadLetter(
            consumer="a_consumer_with_a_long_name",
            event_id=started.event_id,
            event_type="OnlineRecordStarted",
            sdk_app_id=APP,
            attempts=8,
            reason="ConnectionRefusedError: nobody listens at the archive's address, or a firewall is in between",
            first_failed_at_us=now_us,
            last_failed_at_us=now_us,
            body=body,
            routing_key="OnlineRecordStarted",
            received_at_us=now_us,
        )
        await keep_dead_letters(store, [letter, structs.replace(letter, consumer="finished")])
        notice = Notice(
            notice_id="n",
            channel="wecom",
            rule="failed",
            severity="critical",
            sdk_app_id=APP,
            task_id=TASK,
            data={"task_id": TASK, "room_id": 3711256266, "sdk_app_id": APP},
            expires_after_s=3600,
        )
        await add_notices(store, [notice])
        planned = PlannedFile(
            file_key="k",
            number=1,
            name="1_whiteboard.mp4",
            url="http://127.0.0.1:9/whiteboard.mp4",
            address_from="callback",
            announced_size=1000,
            deleted_at_us=now_us + 3 * 86_400_000_000,
        )
        plan = ArchivePlan(
            sdk_app_id=APP,
            task_id=TASK,
            folder=f"{APP}/2026-11-23_1_{TASK}",
            active_at_us=now_us,
            files=(planned,),
        )
        await plan_archive(store, [plan])
        change = Change(
            at_us=now_us,
            who="3f2a9c",
            role="operate",
            address="127.0.0.1",
            action="recording.ask",
            detail={"app": APP, "task": TASK},
            result="asked",
        )
        await keep_change(store, change)
        room = UnaccountedRoom(sdk_app_id=APP, day="2026-11-23", room_id=3711256266, minutes=45)
        await keep_unaccounted(store, [room])
    async with EmbeddedTransport(folder) as transport:
        await transport.retry("finished", message, delay_s=600)
    (folder / "spool").mkdir()
    file = SpoolFolder(folder / "spool").create(WAITING)
    file.append(render_record(file.marker, Record(sequence=1, spooled_at_us=now_us, message=message)))
    file.close()
    (folder / "rejected").mkdir()
    rejected = Rejected(received_at_us=now_us, reason="wrong_sign", sdk_app_id=APP, tries=6, body=body)
    keep_rejected(folder / "rejected", [rejected], now_us=now_us)
