"""One pipeline per data folder."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tiw.process import folder_lock
from tiw.settings import UsageError

HOLD = """
import sys
from pathlib import Path
from tiw.process import folder_lock

with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with folder_lock(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_one_is_told_what_to_do_and_the_first_keeps_it(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        for _ in range(2):
            with pytest.raises(UsageError, match=r"another `tiw up` uses .*: stop it, or set TIW_DATA_DIR"):
                folder_lock(tmp_path).__enter__()
    with folder_lock(tmp_path):
        pass


def test_a_process_that_is_killed_lets_go_of_it(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError):
            folder_lock(tmp_path).__enter__()
        holder.kill()
    with folder_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the data folder .*/file/data cannot be used \(Not a directory\)"):
        folder_lock(tmp_path / "file" / "data").__enter__()
