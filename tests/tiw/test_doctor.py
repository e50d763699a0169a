"""What `tiw doctor` finds in the callback keys, in the installation and at work."""

import json
import os
import time
from pathlib import Path

import pytest

from broker.embedded.transport import EmbeddedTransport
from ingest import generated_keys
from ingest.spool.files import WAITING, SpoolFolder
from ingest.spool.format import Record, Refused, render_record
from store import OverdueDelivery, Store, migrate, report_overdue
from tests.ingest.spool.messages import message
from tiw.doctor import (
    Check,
    check_clock,
    check_consumers,
    check_disk,
    check_event_loop,
    check_keys,
    check_spool,
)
from tiw.settings import read_settings
from workers import consumer_states

APP = 1400000001
KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a6e"


def found(folder: Path, **environ: str) -> Check:
    return check_keys(read_settings({"TIW_DATA_DIR": str(folder), **environ}, is_terminal=False))


def test_good_keys_are_counted_and_not_shown(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY, KEY[:-1]]}))
    assert (check.ok, check.detail) == (True, f"{APP}: 2 (from TIW_CALLBACK_KEYS)")


def test_a_short_key_is_not_well(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({APP: [KEY, "tiny"]}))
    assert not check.ok
    assert "16 to 64" in check.remedy
    assert check.detail.endswith(f"; key 2 of {APP} is shorter than 16 characters")


def test_a_key_is_generated_later_unless_its_app_is_unsigned(tmp_path: Path) -> None:
    assert "one is generated into" in found(tmp_path, TIW_ALLOW_UNSIGNED="0").detail
    assert found(tmp_path, TIW_ALLOW_UNSIGNED=f"0,{APP}").detail == (
        f"none: only unsigned callbacks of 0, {APP} are accepted"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_keys_that_is_not_there_is_not_well(tmp_path: Path) -> None:
    check = found(tmp_path, TIW_CALLBACK_KEYS_FILE=str(tmp_path / "keys.json"))
    assert (check.ok, check.detail) == (False, f"{tmp_path}/keys.json is not there")


def test_an_app_both_signed_and_unsigned_is_not_well(tmp_path: Path) -> None:
    given = found(tmp_path, TIW_CALLBACK_KEYS=json.dumps({5: [KEY]}), TIW_ALLOW_UNSIGNED="5")
    generated_keys(tmp_path)
    made = found(tmp_path, TIW_ALLOW_UNSIGNED=str(APP))
    for check in (given, made):
        assert not check.ok
        assert check.remedy == "take it out of one of them: an app is signed or unsigned, not both"


def test_a_missing_uvloop_is_no_problem_but_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiw.process.find_spec", lambda _: None)
    check = check_event_loop()
    assert (check.ok, check.detail) == (True, "asyncio's own")
    assert "uvloop" in check.remedy


def now_us() -> int:
    return time.time_ns() // 1000


def spool_of(folder: Path) -> Check:
    return check_spool(read_settings({"TIW_DATA_DIR": str(folder)}, is_terminal=False))


def test_callbacks_in_the_spool_are_a_problem_only_if_no_node_has_them(tmp_path: Path) -> None:
    assert spool_of(tmp_path).detail == "empty"
    folder = tmp_path / "spool"
    folder.mkdir()
    file = SpoolFolder(folder).create(WAITING)
    file.append(render_record(file.marker, Record(sequence=1, spooled_at_us=now_us(), message=message("1"))))
    assert (spool_of(tmp_path).ok, spool_of(tmp_path).detail) == (True, "1 callbacks wait for the broker")
    file.close()
    check = spool_of(tmp_path)
    assert (check.ok, "tiw spool drain" in check.remedy) == (False, True)


def test_a_spool_that_does_not_drain_is_a_problem_though_a_node_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    file = SpoolFolder(folder).create(WAITING)
    long_ago = now_us() - 20 * 60 * 1_000_000
    file.append(render_record(file.marker, Record(sequence=1, spooled_at_us=long_ago, message=message("1"))))
    check = spool_of(tmp_path)
    file.close()
    assert (check.ok, check.detail) == (False, "1 callbacks wait for the broker, the oldest for 20 minutes")


def test_a_file_system_without_room_for_files_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings({"TIW_DATA_DIR": str(tmp_path)}, is_terminal=False)
    assert check_disk(settings).ok
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:5], 1_000_000, 3, 3, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    check = check_disk(settings)
    assert (check.ok, check.detail) == (False, f"room for 3 more files in {tmp_path}")


def test_callbacks_that_were_set_aside_and_damage_are_problems(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    record = Record(sequence=1, spooled_at_us=1, message=message("1"))
    SpoolFolder(folder).set_aside(record, Refused(sequence=1, refusals=5, reason="too large"))
    check = spool_of(tmp_path)
    assert (check.ok, "tiw spool drain --set-aside" in check.remedy) == (False, True)
    (path,) = folder.iterdir()
    path.write_bytes(b"damage" + path.read_bytes())
    assert path.name in spool_of(tmp_path).detail


async def test_a_consumer_that_hangs_is_a_problem_with_its_name_its_event_and_its_process(tmp_path: Path) -> None:
    store = Store(f"sqlite+aiosqlite:///{tmp_path}/store.sqlite3")
    transport = EmbeddedTransport(tmp_path)
    async with store, transport:
        await migrate(store)
        hanging = OverdueDelivery(consumer="finished", event_id="e1", lease_holder="host/1-2/77/ab", unsettled_s=400)
        await report_overdue(store, [hanging], lease_holder="host/1-2/77/ab")
        (check,) = [check async for check in check_consumers(transport, store) if check.check == "stuck consumer"]
        states = {state.name: state.overdue for state in await consumer_states(transport, store)}
    assert not check.ok
    assert check.detail.startswith("finished: 1 unsettled, e1 for 40")
    assert "restart process 77 on host" in check.remedy
    assert (states["finished"], states["started"]) == (1, 0)


async def test_a_clock_before_2020_is_not_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        assert (await check_clock(store)).ok
        monkeypatch.setattr("tiw.doctor.time.time", lambda: 1_000_000_000.0)
        check = await check_clock(store)
    assert (check.ok, "NTP" in check.remedy) == (False, True)
