"""A private RabbitMQ node: own name, ports, cookie and data, on the loopback interface only."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

#: Where packages and tarballs put the real scripts. The one on the PATH of Debian changes the user first.
SCRIPT_FOLDERS = (
    "/usr/lib/rabbitmq/bin",
    "/usr/lib/rabbitmq/lib/*/sbin",
    "/opt/rabbitmq/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
)
EPMD_PLACES = ("/usr/lib/erlang/bin/epmd", "/usr/lib/erlang/erts-*/bin/epmd", "/opt/erlang/lib/erlang/erts-*/bin/epmd")

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
USER = "tester"
#: Above it the broker takes nothing more. The queues of many tests need much, and none is to wait for another.
MEMORY_LIMIT = "2GB"


class Membership(NamedTuple):
    """What a member of a cluster is called, and what it shares with all others: the rest."""

    node: str
    cookie: str
    password: str
    epmd_port: int


class RabbitMQServer:
    """One node. A context manager: entering starts it, leaving ends it and removes all it wrote.

    `host`, `port` and `management_port` stay the same over `stop`, `kill` and `start`, and so does the data.
    `settings` are lines of rabbitmq.conf, by name, that come instead of ours. `prefix` is what its programs are
    started with, such as the command that enters a network namespace where `host` is an address.
    """

    def __init__(
        self,
        scripts: Path,
        *,
        settings: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        membership: Membership | None = None,
    ) -> None:
        self._scripts = scripts
        self._settings = dict(settings or {})
        self._prefix = tuple(prefix)
        self._folder = Path(tempfile.mkdtemp(prefix="tiw-rabbitmq-"))
        self.host = host
        self.port, self.management_port, self._dist_port, own_epmd_port = _free_ports(4)
        self._membership = membership or Membership(
            f"tiw-{secrets.token_hex(4)}@localhost", secrets.token_hex(16), secrets.token_hex(8), own_epmd_port
        )
        self.node = self._membership.node
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._epmd = subprocess.Popen(
                [*self._prefix, _epmd(), "-port", str(self._membership.epmd_port), "-address", self.host],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of the node, for signals. Raises `RuntimeError` while it is not running."""
        if self._server is None:
            raise RuntimeError("this node is not running")
        return self._server.pid

    def start(self) -> None:
        """Start the node with the data it has, and return when it accepts clients."""
        if self._server is not None:
            return
        with (self._folder / "console.log").open("ab") as console:
            self._server = subprocess.Popen(
                [*self._prefix, self._scripts / "rabbitmq-server"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts_clients():
            if self._server.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "console.log").read_text(errors="replace")
                raise RuntimeError(f"RabbitMQ did not start:\n{log[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Shut the node down in order; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a crash would; its data stays."""
        self._end(signal.SIGKILL)

    def lose_data(self) -> None:
        """Remove all that the node has kept; it must not run."""
        shutil.rmtree(self._folder / "data")

    def pause(self) -> None:
        """Freeze the node: its sockets stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and return what it prints."""
        return self.run("rabbitmqctl", *arguments)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of RabbitMQ's command lines against this node and return what it prints."""
        return subprocess.run(
            [*self._prefix, self._scripts / program, "--node", self.node, "--quiet", *arguments],
            env=self._environment(),
            check=True,
            capture_output=True,
            text=True,
            cwd=self._folder,
            timeout=START_TIMEOUT_S,
        ).stdout

    def url(self, vhost: str) -> str:
        """Return the address of a virtual host, with credentials."""
        return f"amqp://{USER}:{self._membership.password}@{self.host}:{self.port}/{urllib.parse.quote(vhost, safe='')}"

    def create_vhost(self) -> str:
        """Make a fresh virtual host and return its name."""
        vhost = f"test-{secrets.token_hex(6)}"
        self.api("PUT", f"vhosts/{vhost}")
        self.api("PUT", f"permissions/{vhost}/{USER}", {"configure": ".*", "write": ".*", "read": ".*"})
        return vhost

    def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with all that is in it."""
        self.api("DELETE", f"vhosts/{vhost}")

    def connections(self, vhost: str) -> dict[str, str]:
        """Return the connections of a virtual host: the server's name of each, by the name it gave itself."""
        return {
            connection["client_properties"].get("connection_name", connection["name"]): connection["name"]
            for connection in self.api("GET", "connections")
            if connection.get("vhost") == vhost and "client_properties" in connection
        }

    def close_connection(self, name: str) -> None:
        """Close a connection, by the server's name of it, as an operator would."""
        self.api("DELETE", f"connections/{urllib.parse.quote(name, safe='')}")

    def close_connections(self, vhost: str) -> int:
        """Close every connection of a virtual host, as an operator would; return how many there were."""
        names = self.connections(vhost).values()
        for name in names:
            self.close_connection(name)
        return len(names)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the management API and return its answer. Raises `urllib.error.URLError`."""
        credentials = b64encode(f"{USER}:{self._membership.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://{self.host}:{self.management_port}/api/{path}",
            method=method,
            headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - the address is our own
            content = response.read()
        return json.loads(content) if content else None

    def _accepts_clients(self) -> bool:
        try:
            self.api("GET", "overview?columns=node")
            with socket.create_connection((self.host, self.port), timeout=5):
                return True
        except (OSError, ValueError):
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.send_signal(number)
        if number is signal.SIGKILL:
            # A paused process takes nothing but SIGKILL, and its helpers end with it.
            server.wait()
            return
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise

    def _configure(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(self._membership.cookie)
        cookie.chmod(0o400)
        (self._folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self._folder / "rabbitmq-env.conf").write_text("")
        # Counts of quorum queues, and what the management API says of queues, are fresh after a second, not five: it
        # looks as often as its shortest samples are.
        samples = ", ".join(f"{{{kind}, [{{605, 1}}]}}" for kind in ("global", "basic", "detailed"))
        (self._folder / "advanced.config").write_text(
            "[{rabbit, [{quorum_tick_interval, 1000}]},"
            f" {{rabbitmq_management, [{{sample_retention_policies, [{samples}]}}]}}].\n"
        )
        settings = {
            "listeners.tcp.1": f"{self.host}:{self.port}",
            "management.tcp.ip": self.host,
            "management.tcp.port": self.management_port,
            "default_user": USER,
            "default_pass": self._membership.password,
            "vm_memory_high_watermark.absolute": MEMORY_LIMIT,
            "disk_free_limit.absolute": "50MB",
            # Small write-ahead logs: the default of 512 MiB is for production.
            "raft.wal_max_size_bytes": 33554432,
            "collect_statistics_interval": 1000,
            "log.console": "false",
            "log.file.level": "warning",
            **self._settings,
        }
        (self._folder / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return inherited | {
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(self._membership.epmd_port),
            "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_NODENAME": self.node,
            # The members of a cluster know each other by address: there is no name service for them.
            "RABBITMQ_USE_LONGNAME": "false" if self.node.endswith("@localhost") else "true",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{{self.host.replace('.', ',')}}}",
            # The start script then becomes the node itself, so that signals reach it and nothing stays behind.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


def find_scripts() -> Path | None:
    """Return the folder of RabbitMQ's own scripts, or None if it is not installed."""
    for pattern in SCRIPT_FOLDERS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if (folder / "rabbitmq-server").exists() and (folder / "rabbitmqctl").exists():
                return folder
    return None


def _epmd() -> str:
    on_path = shutil.which("epmd")
    if on_path is not None:
        return on_path
    for pattern in EPMD_PLACES:
        for place in Path("/").glob(pattern.lstrip("/")):
            return str(place)
    raise RuntimeError("RabbitMQ is installed, but Erlang's epmd is not on the PATH")


def _free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for unbound in sockets:
            unbound.bind(("127.0.0.1", 0))
        return tuple(bound.getsockname()[1] for bound in sockets)
    finally:
        for bound in sockets:
            bound.close()
