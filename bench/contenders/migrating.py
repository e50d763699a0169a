"""Databases with our tables in them."""

import subprocess
from pathlib import Path

from bench.contenders.programs import environment, tiw
from bench.errors import BenchError
from bench.machine.installing import ROOT


def migrate(database_url: str, *, tree: Path = ROOT) -> None:
    """Bring a database up to the schema of `tree`, as `tiw migrate` does. Raises `BenchError`."""
    done = subprocess.run(
        tiw("migrate"),
        env=environment({"TIW_DATABASE_URL": database_url}, tree=tree),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"tiw migrate failed:\n{done.stderr[-2000:]}")
