"""`tiw up` on machines as they are found: it takes callbacks, and ends when it is asked to."""

import fcntl
import json
import os
import select
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chaos.faults.small_disk import SmallDisk, cannot_mount
from tests.end_to_end.deployment import Deployment, embedded
from tests.end_to_end.programs import STOP_S, Program, command_line, environment, eventually
from tests.end_to_end.sending import callback, post, send, signed


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path) as deployment:
        deployment.data.mkdir(parents=True)
        yield deployment


def listening(deployment: Deployment, program: Program) -> str:
    """Return the address of callbacks, once there is one."""

    def look() -> str:
        assert program.code is None, program.err
        lines = program.out.splitlines()
        return next((line.removeprefix("callbacks  ") for line in lines if line.startswith("callbacks  ")), "")

    return eventually(look)


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"minutes of the last meeting\n" * 1000)


def _cut(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (event_id TEXT)")
        connection.executemany("INSERT INTO events VALUES (?)", [("x" * 500,)] * 200)
    connection.close()
    os.truncate(path, 6000)


def _of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recordings (title TEXT)")
    connection.close()


def _a_folder(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all/store.db")


@pytest.mark.parametrize("damage", [_not_a_database, _cut, _of_another_program, _a_folder, _dangling])
def test_a_store_that_cannot_be_used_holds_up_no_callback_and_is_used_once_it_is_mended(
    deployment: Deployment, damage: Callable[[Path], None]
) -> None:
    store = deployment.data / "store.db"
    damage(store)
    up = deployment.program("up")
    address = listening(deployment, up)
    send(address, callback("OnlineRecordStarted", "kept"))
    eventually(lambda: up.logged("migration_failed") + up.logged("database_awaited") + up.logged("schema_awaited"))
    if damage is _of_another_program:
        with sqlite3.connect(store) as connection:
            connection.execute("DROP TABLE recordings")
        connection.close()
    else:
        (store.rmdir if store.is_dir() else store.unlink)()
    eventually(lambda: _recorded(deployment))
    up.stop(within_s=STOP_S)


def _recorded(deployment: Deployment) -> bool:
    try:
        return deployment.select("SELECT task_id FROM recordings") == [("kept",)]
    except sqlite3.Error:
        return False


@pytest.mark.parametrize("damage", [_not_a_database, _a_folder])
def test_it_ends_when_asked_to_whatever_the_store_is(deployment: Deployment, damage: Callable[[Path], None]) -> None:
    damage(deployment.data / "store.db")
    up = deployment.program("up")
    listening(deployment, up)
    up.stop(within_s=STOP_S)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if cannot_mount():
        pytest.skip(f"needs a small disk: {cannot_mount()}")
    with SmallDisk(tmp_path / "disk", size_bytes=48 * 1024 * 1024) as disk:
        yield disk


def test_a_full_store_holds_up_no_callback_and_goes_on_once_there_is_room(
    deployment: Deployment, small_disk: SmallDisk
) -> None:
    store = small_disk.path / "store.db"
    deployment.settings["TIW_DATABASE_URL"] = f"sqlite+aiosqlite:///{store}"
    up = deployment.up()
    send(deployment.address, callback("OnlineRecordStarted", "before"))
    eventually(lambda: _tasks(store) == {"before"})
    small_disk.fill()
    tasks = {f"task-{number}" for number in range(8)}
    send(deployment.address, *(callback("OnlineRecordStarted", task, Padding="x" * 100_000) for task in tasks))
    reason = up.wait_logged("store_away")["reason"]
    assert "full" in reason or "I/O error" in reason
    small_disk.free()
    eventually(lambda: _tasks(store) == {"before", *tasks})
    up.stop(within_s=STOP_S)


def test_what_is_accepted_on_a_disk_that_fills_up_is_recorded(tmp_path: Path, small_disk: SmallDisk) -> None:
    with embedded(tmp_path, TIW_DATA_DIR=str(small_disk.path)) as deployment:
        deployment.data = small_disk.path
        up = deployment.up()
        small_disk.fill()
        answers = {
            f"task-{number}": post(
                deployment.address, signed(callback("OnlineRecordStarted", f"task-{number}", Padding="x" * 50_000))
            )
            for number in range(20)
        }
        assert set(answers.values()) <= {200, 503}
        assert 503 in answers.values()
        assert "no space left" in up.wait_logged("publish_not_confirmed")["reason"]
        doctor = deployment.run("doctor", "--json")
        assert doctor.code == 1, doctor.err
        assert not all(check["ok"] for check in json.loads(doctor.out))
        small_disk.free()
        eventually(lambda: post(deployment.address, signed(callback("OnlineRecordStarted", "after"))) == 200)
        kept = {"after", *(task for task, answer in answers.items() if answer == 200)}
        eventually(lambda: kept <= _tasks(small_disk.path / "store.db"))
        up.stop(within_s=STOP_S)


def test_a_read_only_store_holds_up_no_callback_and_goes_on_once_it_can_be_written(
    deployment: Deployment, small_disk: SmallDisk
) -> None:
    store = small_disk.path / "store.db"
    deployment.settings["TIW_DATABASE_URL"] = f"sqlite+aiosqlite:///{store}"
    assert deployment.run("migrate").code == 0
    small_disk.let_be_read_only()
    up = deployment.program("up")
    send(listening(deployment, up), callback("OnlineRecordStarted", "kept"))
    assert "cannot be used now" in up.wait_logged("database_awaited")["error"]
    found = {check["check"]: check["ok"] for check in json.loads(deployment.run("doctor", "--json").out)}
    assert not found["database"]
    small_disk.let_be_written()
    eventually(lambda: _tasks(store) == {"kept"})
    up.stop(within_s=STOP_S)


def _tasks(store: Path) -> set[str]:
    try:
        with closing(sqlite3.connect(store, timeout=10)) as connection:
            return {task for (task,) in connection.execute("SELECT task_id FROM recordings")}
    except sqlite3.Error:
        return set()


def test_a_locked_store_holds_up_no_callback(deployment: Deployment) -> None:
    connection = sqlite3.connect(deployment.data / "store.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    up = deployment.program("up")
    send(listening(deployment, up), callback("OnlineRecordStarted", "kept"))
    connection.execute("ROLLBACK")
    connection.close()
    eventually(lambda: _recorded(deployment))


def test_a_hangup_ends_nothing(deployment: Deployment) -> None:
    up = deployment.up()
    up.signal(signal.SIGHUP)
    eventually(lambda: up.logged("hangup_ignored"))
    send(deployment.address, callback("OnlineRecordStarted", "after"))
    eventually(lambda: _recorded_tasks(deployment) == [("after",)])


def _recorded_tasks(deployment: Deployment) -> list[tuple[str, ...]]:
    return deployment.select("SELECT task_id FROM recordings")


def test_a_log_that_nobody_reads_holds_up_no_callback(deployment: Deployment) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    up = subprocess.Popen(
        command_line("up"), env=environment(deployment.settings), stdout=subprocess.PIPE, stderr=writing, text=True
    )
    os.close(writing)
    try:
        assert up.stdout is not None
        address = up.stdout.readline().removeprefix("callbacks  ").strip()
        for number in range(60):
            # Each is refused, and said to be in the log.
            assert post(address, b"%d" % number + b"x" * 200) == 400
            if number % 10 == 0:
                began_s = time.monotonic()
                assert post(address, signed(callback("OnlineRecordStarted", f"t{number}"))) == 200
                assert time.monotonic() - began_s < 2
        os.set_blocking(reading, False)
        while select.select([reading], [], [], 0.5)[0]:
            os.read(reading, 65536)
        up.send_signal(signal.SIGTERM)
        assert up.wait(STOP_S) == 0
    finally:
        up.kill()
        up.communicate()
        os.close(reading)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_nobodys(deployment: Deployment, closed: str) -> None:
    command = " ".join(command_line("up"))
    up = subprocess.Popen(["/bin/sh", "-c", f"exec {command} {closed}"], env=environment(deployment.settings))
    try:
        eventually(lambda: _is_migrated(deployment))
        up.send_signal(signal.SIGTERM)
        assert up.wait(STOP_S) == 0
    finally:
        up.kill()
        up.wait()


def _is_migrated(deployment: Deployment) -> bool:
    try:
        return deployment.select("SELECT level FROM schema_level") != []
    except sqlite3.Error:
        return False


def test_names_in_every_language_are_printed_where_the_language_is_c(deployment: Deployment) -> None:
    # An interpreter's own start decides how it writes.
    deployment.anew = True
    deployment.settings |= {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    deployment.up()
    send(deployment.address, callback("OnlineRecordStarted", "数学课"))
    eventually(lambda: _recorded_tasks(deployment) == [("数学课",)])
    listed = deployment.program("recordings", "list")
    assert listed.wait() == 0, listed.err
    assert "\\u6570\\u5b66\\u8bfe" in listed.out
