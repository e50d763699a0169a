"""How a process of ours ends before its command has a way of its own to stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_sigterm_is_handled_from_the_start_on_as_the_first_process_of_a_container_needs() -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Nothing listens there: `migrate` waits.
        "TIW_DATABASE_URL": "postgresql+asyncpg://user:secret@127.0.0.1:1/tiw",
    }
    command = [sys.executable, "-P", "-m", "tiw", "migrate"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "database_awaited" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            # Not -SIGTERM, which is what the kernel does, and does not do to process 1.
            assert process.wait(timeout=10) == 128 + signal.SIGTERM
        finally:
            process.kill()


def test_output_that_cannot_be_written_is_said_and_one_that_nobody_reads_is_not() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "tiw", "completion", "bash"]
    with Path("/dev/full").open("wb") as full:
        refused = subprocess.run(
            command, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert (refused.returncode, refused.stderr) == (1, "tiw: standard output: No space left on device\n")
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


#: Interrupts itself as the module that `MODULE` names is about to be imported.
_INTERRUPTED = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["MODULE"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.modules.pop(os.environ["MODULE"], None)
sys.argv = ["tiw", "archive", "list"]
runpy.run_module("tiw", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["pathlib", "tiw.parser", "tiw.process", "structlog", "tiw.commands.archive", "aiohttp"]
)
def test_an_interrupt_while_it_still_imports_ends_it_without_a_word(module: str, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MODULE": module, "TIW_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", _INTERRUPTED]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


def test_an_interrupt_that_is_ignored_stays_so(tmp_path: Path) -> None:
    # As in the background of a shell without job control.
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MODULE": "tiw.process", "TIW_DATA_DIR": str(tmp_path)}
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{_INTERRUPTED}"
    command = [sys.executable, "-P", "-c", ignoring]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nothing is kept" in done.stderr
