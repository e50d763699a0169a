"""On what it was measured, and who."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.machine.arena import Arena
from bench.machine.builds import refuse_other_builds
from bench.machine.commits import describe_here
from bench.options import Options


def describe_machine(arena: Arena, options: Options) -> dict[str, Any]:
    """Return what a reader of the numbers wants to know: processors, memory and versions. No names of this host.

    Raises `BenchError` if contenders would run on different builds of Python.
    """
    installation = arena.installation
    build = refuse_other_builds({"the Python peers": installation.python_peers})
    return {
        "commit": describe_here(),
        "before": arena.before.name if options.against else "",
        "processors": len(os.sched_getaffinity(0)),
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")),
        "memory_mb": int(_first(r"MemTotal:\s*(\d+)", Path("/proc/meminfo")) or 0) // 1000,
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "build": str(build),
        "uvloop": version("uvloop"),
        "node": _version([str(installation.node), "--version"]).removeprefix("v"),
        "go": _version([str(installation.go), "env", "GOVERSION"]).removeprefix("go") if installation.go else "",
        "rabbitmq": str(arena.rabbitmq.api("GET", "overview?columns=rabbitmq_version")["rabbitmq_version"]),
        "postgresql": arena.postgres.query("SHOW server_version").split()[0],
        "peers": _peers(arena),
    }


def _peers(arena: Arena) -> dict[str, str]:
    """Return the versions of what the peers are made of, as far as a reader would ask."""
    names = ("aiohttp", "aio-pika", "asyncpg", "dramatiq", "fastapi", "faststream", "granian", "taskiq", "uvicorn")
    script = f"from importlib.metadata import version\nfor name in {names!r}: print(name, version(name))"
    lines = _version([str(arena.installation.python_peers), "-c", script]).splitlines()
    found = dict(line.split(maxsplit=1) for line in lines)
    for name in ("fastify", "amqplib", "pg"):
        package = arena.installation.node_peers / "node_modules" / name / "package.json"
        found[name] = _first(r'"version":\s*"([^"]+)"', package)
    return found


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(errors="replace"))
    return found[1].strip() if found else ""


def _version(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
