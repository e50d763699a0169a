"""The pipeline as several processes: ingest nodes and workers over one broker and one database."""

import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from chaos.errors import ChaosError, UnknownNameError
from chaos.machine.node import Node
from chaos.scenario import Layout, Wiring

ROOT = Path(__file__).resolve().parent.parent.parent

#: Where the files of our consumers lie.
CONSUMERS = ROOT / "chaos" / "consumers"

APP = 1400000001

#: Another one, whose events are in no ledger: a scenario accounts for them by itself.
OTHER_APP = 1400000002

#: Names the file that our consumers write their effects to.
EFFECTS_VARIABLE = "CHAOS_EFFECTS"

#: Short retry delays: a retry must come back within a scenario. The one of leases (5 s) is among them.
LADDER_S = (0.5, 1.0, 2.0, 5.0)

_MIGRATE_WITHIN_S = 60.0


class Deployment:
    """A context manager: entering migrates the database and starts all nodes; leaving kills what still runs."""

    def __init__(self, folder: Path, layout: Layout, wiring: Wiring) -> None:
        code = wiring.code or ROOT
        self.folder = folder
        self.layout = layout
        self.wiring = wiring
        self.key = secrets.token_hex(16)
        self.effects_file = folder / "effects.jsonl"
        self.logs = folder / "logs"
        self.plugins = folder / "plugins"
        self.ingest = [self._ingest(number, code) for number in range(1, layout.ingest_nodes + 1)]
        self.added: list[Node] = []
        self.workers = [self._worker(number, code) for number in range(1, layout.workers + 1)]

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True)
        self.plugins.mkdir()
        for name in self.layout.consumers:
            shutil.copy(CONSUMERS / f"{name}.py", self.plugins)
        try:
            self.migrate(self.wiring.code)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for node in self.nodes:
            node.kill()

    @property
    def nodes(self) -> list[Node]:
        """All nodes, ingest first."""
        return [*self.ingest, *self.added, *self.workers]

    @property
    def data_folders(self) -> list[Path]:
        """The folders of the ingest nodes' spools, each once."""
        return list(dict.fromkeys(Path(node.environ["TIW_DATA_DIR"]) for node in self.ingest))

    @property
    def addresses(self) -> list[str]:
        """Where the sender sends to."""
        return [self.wiring.front(node.address) for node in self.ingest]

    def node(self, name: str) -> Node:
        """Return the node of this name, such as `ingest-1` or `work-2`. Raises `UnknownNameError`."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise UnknownNameError(f"there is no node {name}")

    def migrate(self, code: Path | None = None) -> None:
        """Bring the tables up to date with `code` (None: ours). Raises `ChaosError`."""
        self.run("migrate", environ=self._environ("migrate") | {"PYTHONPATH": str(code or ROOT)})

    def start(self) -> None:
        """Start all nodes and return once each is ready."""
        for node in self.nodes:
            node.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once every node says that it is ready. Raises `ChaosError`."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.wait_ready, self.nodes))

    def stop(self) -> None:
        """End all nodes in order, ingest first. Raises `ChaosError` if one does not."""
        for nodes in (self.ingest, self.added, self.workers):
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.stop, nodes))

    def run(self, *arguments: str, environ: dict[str, str]) -> str:
        """Run a `tiw` command to its end and return what it prints. Raises `ChaosError` if it fails."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "tiw", *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_MIGRATE_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ChaosError(f"tiw {arguments[0]} did not end within {_MIGRATE_WITHIN_S:g} s") from None
        if done.returncode != 0:
            raise ChaosError(f"tiw {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-1_000:]}")
        return done.stdout

    def add(self, name: str, *arguments: str, **settings: str) -> Node:
        """Return another node, not started yet, which is stopped before the workers are."""
        environ = self._environ(f"data-{name}") | settings
        node = Node(name, arguments, environ=environ, code=self.wiring.code or ROOT, logs=self.logs)
        self.added.append(node)
        return node

    def environ_of(self, node: Node) -> dict[str, str]:
        """Return the environment for a command about a node, such as `tiw spool list`."""
        return {**node.environ, "PYTHONPATH": str(node.code)}

    def _ingest(self, number: int, code: Path) -> Node:
        name = f"ingest-{number}"
        data = "data-ingest" if self.layout.shares_data else f"data-{name}"
        environ = self._environ(data) | {
            "TIW_AMQP_URL": self.wiring.ingest_amqp_url,
            "TIW_HTTP": f"127.0.0.1:{_free_port()}",
            **self.wiring.ingest_environ,
        }
        # It has no business with the store.
        del environ["TIW_DATABASE_URL"]
        arguments = ["ingest"] if self.layout.processes == 1 else ["ingest", "--processes", str(self.layout.processes)]
        return Node(name, arguments, environ=environ, code=code, logs=self.logs)

    def _worker(self, number: int, code: Path) -> Node:
        name = f"work-{number}"
        environ = self._environ(f"data-{name}") | self.wiring.worker_environ
        return Node(name, ["work"], environ=environ, code=code, logs=self.logs)

    def _environ(self, data: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIW_")}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "TIW_DATA_DIR": str(self.folder / data),
            "TIW_CALLBACK_KEYS": json.dumps({str(APP): [self.key]}),
            "TIW_AMQP_URL": self.wiring.worker_amqp_url,
            "TIW_DATABASE_URL": self.wiring.worker_database_url,
            "TIW_CONSUMERS": str(self.plugins),
            "TIW_RETRY_DELAYS_S": ",".join(f"{delay_s:g}" for delay_s in LADDER_S),
            "TIW_ADMIN": f"127.0.0.1:{_free_port()}",
            "TIW_CONSOLE": "off",
            "TIW_LOG_FORMAT": "json",
            EFFECTS_VARIABLE: str(self.effects_file),
        }


#: Ports are handed out once, and from below the range that the kernel takes outgoing ones from: a node that is
#: started again must find its port free.
_ports = itertools.count(20_000 + secrets.randbelow(8_000))


def _free_port() -> int:
    while True:
        port = next(_ports)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
