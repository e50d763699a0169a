"""A process that is lied to believes it, and stops believing when the lie ends."""

import errno
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.errors import ChaosError
from chaos.faults.interposer import Interposer

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cc") is None, reason="no C compiler")

#: Answers each line, a Python expression, with its value, or the number of the OSError.
CHILD = """
import os, sqlite3, sys, time
def write(name):
    with open(name, "ab", buffering=0) as file:
        file.write(b"x")
        os.fsync(file.fileno())
def insert(name):
    with sqlite3.connect(name) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
        connection.execute("INSERT INTO t VALUES (1)")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print("errno", error.errno, flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""

Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[Interposer]:
    with Interposer(tmp_path_factory.mktemp("interposer"), disk=disk) as interposer:
        yield interposer


@pytest.fixture
def interposer(shared: Interposer) -> Iterator[Interposer]:
    yield shared
    shared.heal()


@pytest.fixture(scope="module")
def ask(shared: Interposer) -> Iterator[Ask]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=shared.environ
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def answer(expression: str) -> str:
            stdin.write(f"{expression}\n")
            stdin.flush()
            return stdout.readline().strip()

        yield answer
        stdin.close()


def test_a_process_that_listens_is_counted(interposer: Interposer, ask: Ask) -> None:
    assert ask("1") == "1"
    assert interposer.listeners == 1


def test_a_folder_that_cannot_be_preloaded_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChaosError, match="cannot be preloaded"), Interposer(tmp_path / "a b", disk=tmp_path):
        pytest.fail("it was entered")


def test_files_on_the_disk_fail_and_others_do_not(interposer: Interposer, ask: Ask, disk: Path, tmp_path: Path) -> None:
    on_disk, elsewhere = f"write('{disk}/file')", f"write('{tmp_path}/file')"
    assert ask(on_disk) == "None"
    interposer.fail_writes(errno.ENOSPC)
    assert ask(on_disk) == f"errno {errno.ENOSPC}"
    assert ask(elsewhere) == "None"
    interposer.heal()
    interposer.fail_syncs(errno.EIO)
    assert ask(on_disk) == f"errno {errno.EIO}"
    interposer.heal()
    assert ask(on_disk) == "None"
    assert interposer.failures >= 2


def test_sqlite_sees_a_full_and_a_broken_disk(interposer: Interposer, ask: Ask, disk: Path) -> None:
    insert = f"insert('{disk}/database')"
    assert ask(insert) == "None"
    interposer.fail_writes(errno.ENOSPC)
    assert ask(insert) == "database or disk is full"
    interposer.heal()
    interposer.fail_syncs(errno.EIO)
    assert ask(insert) == "disk I/O error"
    interposer.heal()
    assert ask(insert) == "None"


def test_a_slow_disk_is_slow(interposer: Interposer, ask: Ask, disk: Path) -> None:
    interposer.delay_syncs(0.2)
    start_s = time.monotonic()
    assert ask(f"write('{disk}/file')") == "None"
    assert time.monotonic() - start_s >= 0.2


def test_the_wall_clock_steps_and_the_monotonic_one_does_not(interposer: Interposer, ask: Ask) -> None:
    for step_s in (3600, -3600):
        interposer.step_clock(step_s)
        assert abs(float(ask("time.time()")) - time.time() - step_s) < 10
        assert abs(float(ask("time.monotonic()")) - time.monotonic()) < 10


def test_the_wall_clock_stands_still(interposer: Interposer, ask: Ask) -> None:
    interposer.freeze_clock()
    assert ask("time.time()") == ask("time.time()")
    interposer.heal()
    assert ask("time.time()") != ask("time.time()")
