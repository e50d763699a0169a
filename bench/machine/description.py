"""On what it was measured."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from bench.machine.arena import Arena


def describe_machine(arena: Arena) -> dict[str, Any]:
    """Return what a reader of the numbers wants to know: processors, memory and versions. No names of this host."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")),
        "memory_mb": int(_first(r"MemTotal:\s*(\d+)", Path("/proc/meminfo")) or 0) // 1000,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _version([str(arena.installation.node), "--version"]),
        "rabbitmq": str(arena.rabbitmq.api("GET", "overview?columns=rabbitmq_version")["rabbitmq_version"]),
        "postgresql": arena.postgres.query("SHOW server_version"),
    }


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(errors="replace"))
    return found[1].strip() if found else ""


def _version(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
