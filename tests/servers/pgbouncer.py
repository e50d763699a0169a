"""A private PgBouncer in front of a private PostgreSQL, on 127.0.0.1 only."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.servers.postgres import DEADLINE_S, UNPRIVILEGED_USER


def pgbouncer_program() -> str | None:
    """Return where PgBouncer is installed, or None."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A pooler of `mode` (session or transaction) with `pool_size` connections; a context manager.

    `settings` are more lines of its file.
    """

    def __init__(self, program: str, *, server_port: int, mode: str, pool_size: int, settings: str) -> None:
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="tiw-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        (self._folder / "users").write_text('"tiw" ""\n')
        (self._folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server_port}\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={self.port}\nunix_socket_dir=\n"
            f"auth_type=trust\nauth_file={self._folder}/users\npool_mode={mode}\ndefault_pool_size={pool_size}\n{settings}"
        )

    def __enter__(self) -> Self:
        self._folder.chmod(0o755)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._folder / "ini")],
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=UNPRIVILEGED_USER if os.geteuid() == 0 else None,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(DEADLINE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database_url: str) -> str:
        """Return the URL of the same database through this pooler."""
        return f"postgresql+asyncpg://tiw@127.0.0.1:{self.port}/{database_url.rpartition('/')[2]}"

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0
