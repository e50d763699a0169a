"""Listings: to be read at 80 columns, and told apart from nothing."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store import ListedTask, Store, apply_events, note_listing
from tests.store.classes import callback, keep
from tests.tiw.filled_folder import APP, TASK
from tiw import output
from tiw.parser import main

#: Commands that list, each with what must be whole in it.
LISTINGS = {
    "recordings list": TASK,
    "events list": TASK,
    "dead-letters list": TASK,
    "consumers list": "unrecognized",
    "spool list": TASK,
    "rejected list": TASK,
    "notify list": "wecom",
    "changes list": TASK,
}


@pytest.fixture
def folder(filled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder with something in each listing."""
    monkeypatch.setenv("TIW_ADMIN", "127.0.0.1:9999")
    return filled_folder


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
    assert (
        "no consumer 'finnished' ever ran here; there are a_consumer_with_a_long_name, archived, finished, "
        in printed.err
    )
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
    assert shown("events list --type Nonsense") == "No events match.\n"
    assert shown(f"events list --task {TASK} --source archive") == "No events match.\n"
    assert TASK in shown(f"events list --task {TASK} --source callback")
    assert shown("dead-letters list --event-id x") == "No dead letters match.\n"
    assert shown("dead-letters list --reason x") == "No dead letters match.\n"
    assert shown("rejected list --app 5") == "No refused callback of the last 24 hours matches.\n"
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv("TIW_DATA_DIR", str(empty))
    main(["migrate"])
    assert shown("recordings list") == "No recordings yet.\n"
    assert shown("events list") == "No events yet.\n"
    assert shown("dead-letters list") == "No dead letters.\n"


def test_the_admin_address_that_is_in_effect_is_told(
    folder: Path, shown: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads(shown("config --json"))
    assert (values["admin"], values["admin_of_work"]) == ("127.0.0.1:9999", "127.0.0.1:9999")
    monkeypatch.delenv("TIW_ADMIN")
    values = json.loads(shown("config --json"))
    assert (values["admin"], values["admin_of_work"]) == ("127.0.0.1:9080", None)


def test_files_of_a_recording_that_nobody_knows_are_not_tried_again(
    folder: Path, shown: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, named in (("typo", "'typo'"), (f"{TASK} --app 1", f"'{TASK}' of application 1")):
        assert main(["archive", "retry", *arguments.split()]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f"tiw: no file of {named} is known: `tiw archive list` has those that are\n"
    assert "1 files are tried again" in shown(f"archive retry {TASK}")


def test_that_nothing_is_archived_is_said_only_where_the_store_knows_of_no_file(
    folder: Path, tmp_path: Path, shown: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown("archive list --state lost").strip() == "No files match."
    monkeypatch.setenv("TIW_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/empty.db")
    assert main(["migrate"]) == 0
    assert "No files yet. TIW_ARCHIVE is not set here" in " ".join(shown("archive list").split())
