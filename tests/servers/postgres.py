"""A private PostgreSQL: its own data, port and log, on 127.0.0.1 only; never one that runs already."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

#: How long a start or stop may take before the test fails.
DEADLINE_S = 30.0

#: initdb and the server refuse to run as root.
UNPRIVILEGED_USER = "postgres"


def postgres_binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL that is installed, or None."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*versions, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((path for path in candidates if (path / "initdb").exists() and (path / "postgres").exists()), None)


class PostgresServer:
    """One server with its data in a temporary folder; a context manager that leaves nothing behind."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="tiw-postgres-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = _free_port()

    def __enter__(self) -> Self:
        try:
            if os.geteuid() == 0:
                os.chown(self._folder, pwd.getpwnam(UNPRIVILEGED_USER).pw_uid, -1)
            self._folder.chmod(0o700)
            subprocess.run(
                [
                    self.binaries / "initdb",
                    f"--pgdata={self._data}",
                    "--username=tiw",
                    "--auth=trust",
                    "--encoding=UTF8",
                    # As in most installations: text does not sort by its bytes.
                    "--locale-provider=icu",
                    "--icu-locale=en-US",
                    "--no-locale",
                    "--no-sync",
                ],
                check=True,
                capture_output=True,
                timeout=DEADLINE_S * 2,
                **self._as_user(),
            )
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, whether it exists or not."""
        return f"postgresql+asyncpg://tiw@127.0.0.1:{self.port}/{database}"

    def create_database(self, *, template: str = "template1") -> str:
        """Create a database like `template`, by default an empty one, and return its URL."""
        self._databases += 1
        name = f"tiw_{self._databases}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever still uses it."""
        self.query(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start the server on its port and return when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.binaries / "postgres",
                    f"-D{self._data}",
                    f"-p{self.port}",
                    "-clisten_addresses=127.0.0.1",
                    "-cunix_socket_directories=",
                    "-cmax_connections=60",
                    "-cshared_buffers=32MB",
                    "-cdeadlock_timeout=200ms",
                    # Nothing here loses power: what a process has written before it is killed is the kernel's.
                    "-cfsync=off",
                ],
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL did not start:\n{self.log()}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{self.log()}"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is fast, SIGQUIT immediate, SIGKILL a crash. Return when it is gone.

        The signals: https://www.postgresql.org/docs/current/server-shutdown.html
        """
        assert self._process is not None, "the server is not running"
        self._process.send_signal(how)
        self._process.wait(DEADLINE_S)
        self._process = None

    def crash(self) -> None:
        """End all its processes at the same moment, as a loss of power would."""
        self._signal_all(signal.SIGKILL)
        assert self._process is not None, "the server is not running"
        self._process.wait(DEADLINE_S)
        self._process = None

    def freeze(self) -> None:
        """Let all its processes hang, as a host does whose disk is gone; `thaw` undoes it."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all its processes go on."""
        self._signal_all(signal.SIGCONT)

    def query(self, sql: str) -> str:
        """Run one statement in the maintenance database and return its rows as text."""
        result = self._psql(sql)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode().strip()

    def log(self) -> str:
        """Return what the server has written to its log."""
        return (self._folder / "log").read_text(errors="replace")

    def _answers(self) -> bool:
        return self._psql("SELECT 1").returncode == 0

    def _psql(self, sql: str) -> subprocess.CompletedProcess[bytes]:
        arguments = ["-X", "-h127.0.0.1", f"-p{self.port}", "-Utiw", "-dpostgres", "-At", "-c", sql]
        return subprocess.run(
            [self.binaries / "psql", *arguments], check=False, capture_output=True, timeout=DEADLINE_S
        )

    def _signal_all(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in [self.pid, *map(int, children)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                # A connection's process that ended meanwhile.
                continue

    def _as_user(self) -> dict[str, Any]:
        """Become the unprivileged user if we are root, and stay out of the terminal's Ctrl-C."""
        options: dict[str, Any] = {"cwd": self._folder, "start_new_session": True}
        if os.geteuid() == 0:
            options |= {"user": UNPRIVILEGED_USER, "group": pwd.getpwnam(UNPRIVILEGED_USER).pw_gid, "extra_groups": []}
        return options


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
