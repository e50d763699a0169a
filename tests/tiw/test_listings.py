"""Listings: to be read at 80 columns, told apart from nothing, and described by a schema that holds."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broker import Message
from broker.embedded.transport import EmbeddedTransport
from ingest.rejected import Rejected, keep_rejected
from ingest.spool.files import WAITING, SpoolFolder
from ingest.spool.format import Record, render_record
from store import (
    DeadLetter,
    ListedTask,
    Notice,
    Store,
    UnaccountedRoom,
    add_notices,
    apply_events,
    keep_dead_letters,
    keep_unaccounted,
    migrate,
    note_listing,
)
from tests.store.classes import callback, keep
from tiw import output
from tiw.commands.schema import DOCUMENTS, documents
from tiw.parser import main

TASK = "rtc30dje7c2g0cdc2v0o"
EVENT = "0123456789abcdef0123456789abcdef"
APP = 1400000001

#: Commands that list, each with what must be whole in it.
LISTINGS = {
    "recordings list": TASK,
    "events list": TASK,
    "dead-letters list": TASK,
    "consumers list": "unrecognized",
    "spool list": TASK,
    "rejected list": TASK,
    "notify list": "wecom",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder with something in each listing."""
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TIW_ADMIN", "127.0.0.1:9999")
    asyncio.run(_fill(tmp_path))
    return tmp_path


async def _fill(folder: Path) -> None:
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
        await keep_dead_letters(store, [letter])
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


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def show(line: str) -> str:
        main(line.split())
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize(("command", "whole"), LISTINGS.items(), ids=str)
def test_at_80_columns_ids_are_whole_and_no_line_is_longer(
    folder: Path, shown: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, command: str, whole: str
) -> None:
    monkeypatch.setattr(output, "_WIDE", 80)
    lines = shown(command).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert any(whole in line for line in lines)
    wide = shown(f"{command} --wide").splitlines()
    assert len(wide[1].split("  ")) > len(lines[1].split("  "))
    # Nothing is broken into lines there: one a row, under the heads and their rule.
    assert len(wide) <= len(lines)


def test_retries_and_their_time_are_seen_with_their_consumer(folder: Path, shown: Callable[[str], str]) -> None:
    (finished,) = [state for state in json.loads(shown("consumers --json")) if state["name"] == "finished"]
    assert finished["retrying"] == 1
    assert finished["next_retry_at"].endswith("Z")
    row = next(line for line in shown("consumers").splitlines() if line.startswith(" finished "))
    assert finished["next_retry_at"][:19].replace("T", " ") in row


@pytest.mark.parametrize("command", ["list", "show", "replay --dry-run", "purge --dry-run"])
def test_a_consumer_that_never_ran_is_no_consumer_without_dead_letters(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(f"dead-letters {command} --consumer finnished".split()) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no consumer 'finnished' ever ran here; there are a_consumer_with_a_long_name, finished, " in printed.err
    assert main(f"dead-letters {command} --consumer a_consumer_with_a_long_name".split()) == 0


def test_failed_recordings_are_found(folder: Path, shown: Callable[[str], str]) -> None:
    (failed,) = json.loads(shown("recordings list --status failed --json"))
    assert failed["error"]["code"] == "FailedOperation.Record"
    assert len(json.loads(shown("recordings list --json"))) == 2


async def _find(folder: Path) -> None:
    """Let a recording be found by asking, and somebody forge its end."""
    now_s = int(time.time())
    found = callback("OnlineRecordStarted", now_s - 100, APP, TaskId="found")
    forged = callback("OnlineRecordFinished", now_s, APP, TaskId="found", TotalTime=1)
    invented = callback("OnlineRecordFinished", now_s, APP, TaskId="invented", TotalTime=1)
    real = callback("OnlineRecordFinished", now_s, APP, TaskId="real", TotalTime=1)
    async with Store(f"sqlite+aiosqlite:///{folder}/store.db") as store:
        tasks = [ListedTask(task_id="found")]
        await note_listing(store, APP, tasks, found_by="DescribeRunningTasks", is_complete=True)
        await apply_events(
            store,
            [
                keep(found, received_at_us=(now_s - 60) * 1_000_000, source="reconcile"),
                *(keep(one, received_at_us=now_s * 1_000_000, verified=False) for one in (forged, invented)),
                keep(real, received_at_us=now_s * 1_000_000, verified=True),
            ],
        )


def test_what_was_found_late_and_what_the_vendor_says_of_an_end_is_told(
    folder: Path, shown: Callable[[str], str]
) -> None:
    asyncio.run(_find(folder))
    document = json.loads(shown("recordings show found --json"))
    assert (document["status"], document["verified"]) == ("RECORDING", None)
    (finding,) = document["found"]
    assert (finding["event_type"], finding["by"], finding["late_s"]) == (
        "OnlineRecordStarted",
        "DescribeRunningTasks",
        40,
    )
    assert [(event["source"], event["verified"]) for event in document["events"]] == [("reconcile", None), ("", False)]

    told = shown("recordings show found")
    assert "Found by asking the vendor" in told
    row = next(line for line in told.splitlines() if "DescribeRunningTasks" in line)
    assert "0:00:40" in row
    assert not any(line.startswith("  verified") for line in told.splitlines())
    assert "no: the vendor contradicts it" in shown("recordings show invented")
    assert "the vendor confirms it" in shown("recordings show real")
    assert "Found" not in shown("recordings show real")
    rows = {line.split()[0]: line for line in shown("recordings list").splitlines() if line.strip()}
    assert "contradicted by the vendor" in rows["invented"]
    assert "contradicted" not in rows["found"] + rows["real"]
    assert {event["source"] for event in json.loads(shown("events list --json"))} == {"", "reconcile"}


def test_nothing_that_matches_is_told_from_nothing_at_all(
    folder: Path, shown: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown("recordings list --app 5") == "No recordings match.\n"
    assert shown("events list --app 5") == "No events match.\n"
    assert shown("events list --unrecognized") == "No events match.\n"
    assert shown("dead-letters list --event-id x") == "No dead letters match.\n"
    assert shown("rejected list --app 5") == "No refused callback of the last 24 hours matches.\n"
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv("TIW_DATA_DIR", str(empty))
    main(["migrate"])
    assert shown("recordings list") == "No recordings yet.\n"
    assert shown("events list") == "No events yet.\n"
    assert shown("dead-letters list") == "No dead letters.\n"


@pytest.mark.parametrize("command", DOCUMENTS)
def test_what_is_printed_as_json_is_as_its_schema_says(folder: Path, shown: Callable[[str], str], command: str) -> None:
    schema: dict[str, Any] = documents()["output.schema.json"]
    Draft202012Validator.check_schema(schema)
    line = f"{command} {TASK}" if command == "recordings show" else command
    document = json.loads(shown(f"{line} --json"))
    assert document
    assert set(schema["properties"]) == set(DOCUMENTS)
    Draft202012Validator(_closed(schema)).validate({command: document})


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Let no object have a member that is not described."""
    parts = {name: part | {"additionalProperties": False} for name, part in schema["$defs"].items()}
    return schema | {"$defs": parts, "additionalProperties": False}


def test_the_admin_address_that_is_in_effect_is_told(
    folder: Path, shown: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads(shown("config --json"))
    assert (values["admin"], values["admin_of_work"]) == ("127.0.0.1:9999", "127.0.0.1:9999")
    monkeypatch.delenv("TIW_ADMIN")
    values = json.loads(shown("config --json"))
    assert (values["admin"], values["admin_of_work"]) == ("127.0.0.1:9080", None)
