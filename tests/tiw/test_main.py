"""How a process of ours ends before its command has a way of its own to stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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
