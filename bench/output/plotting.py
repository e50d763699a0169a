"""Have the report plotted, in the environment that has matplotlib."""

import subprocess
from pathlib import Path

from bench.contenders.programs import environment
from bench.errors import BenchError


def plot(python: Path, report: Path, picture: Path) -> None:
    """Draw the JSON document `report` into `picture`. Raises `BenchError`."""
    done = subprocess.run(
        [python, "-P", "-m", "bench.output.plot", report, picture],
        env=environment({"MPLBACKEND": "svg"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"the plot failed:\n{done.stderr[-2000:]}")
