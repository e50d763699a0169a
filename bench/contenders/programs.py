"""How the contenders are started: commands and environments."""

import os
import sys
from pathlib import Path

from bench.machine.arena import Arena
from bench.machine.installing import ROOT


def tiw(*arguments: str) -> list[str]:
    """Return the command line of `tiw`, as ./dev runs it."""
    return [sys.executable, "-P", "-m", "tiw", *arguments]


def bench_module(name: str) -> list[str]:
    """Return the command line of a module of the bench, in the project's own environment."""
    return [sys.executable, "-P", "-m", f"bench.{name}"]


def python_peer(arena: Arena, name: str) -> list[str]:
    """Return the command line of a Python peer, in the peers' environment."""
    return [str(arena.installation.python_peers), "-P", "-m", f"bench.peers.python.{name}"]


def node_peer(arena: Arena, name: str) -> list[str]:
    """Return the command line of a Node peer."""
    return [str(arena.installation.node), str(arena.installation.node_peers / f"{name}.js")]


def go_peer(arena: Arena, name: str) -> list[str]:
    """Return the command line of a Go peer, compiled."""
    return [str(arena.installation.go_peer(name))]


def environment(settings: dict[str, str], *, tree: Path = ROOT) -> dict[str, str]:
    """Return the environment of a program: `settings`, and nothing of TIW_ or BENCH_ from this process.

    `tree` is where our packages come from: another commit's files are another contender.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TIW_", "BENCH_"))}
    return {**inherited, "PYTHONPATH": str(tree), "NODE_ENV": "production", **settings}
