"""Databases with our tables in them."""

import subprocess

from bench.contenders.programs import environment, tiw
from bench.errors import BenchError


def migrate(database_url: str) -> None:
    """Bring a database up to our schema, as `tiw migrate` does. Raises `BenchError`."""
    done = subprocess.run(
        tiw("migrate"),
        env=environment({"TIW_DATABASE_URL": database_url}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"tiw migrate failed:\n{done.stderr[-2000:]}")
