"""Several scenarios at the same time, each lane a process with servers of its own: most of the time they wait."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from chaos.machine.deployment import ROOT
from chaos.results import Result

#: What a lane gets to end what it has started.
_END_WITHIN_S = 60.0


def run_lanes(names: Sequence[str], options: Sequence[str], *, lanes: int) -> list[Result]:
    """Play the scenarios of these names in `lanes` processes; return their results in the order of the names.

    `options` are given to each lane, too. A lane that is asked to end, as by Ctrl-C, ends its servers and processes;
    so does each if this one is. Raises `KeyboardInterrupt`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tiw-chaos-")))
        # Neighbours in the list are alike: each lane gets some of all kinds.
        shares = [names[number::lanes] for number in range(lanes)]
        processes = [
            stack.enter_context(_Lane(share, options, folder / f"{number}.json"))
            for number, share in enumerate(shares)
            if share
        ]
        results = [result for lane in processes for result in lane.results()]
    order = {name: number for number, name in enumerate(names)}
    return sorted(results, key=lambda result: (order[result.scenario], result.seed))


class _Lane:
    """One process; a context manager that leaves none behind."""

    def __init__(self, names: Sequence[str], options: Sequence[str], file: Path) -> None:
        self._file = file
        chosen = [argument for name in names for argument in ("--scenario", name)]
        self._command = [sys.executable, "-P", "-m", "chaos", "--lanes", "1", *options, *chosen, "--json", str(file)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Its matrix is a part of ours. A session of its own: it ends when we say so.
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def results(self) -> list[Result]:
        """Return the results once the process has ended; none if it was stopped."""
        if self._process is not None:
            self._process.wait()
        return msgspec.json.decode(self._file.read_bytes(), type=list[Result]) if self._file.exists() else []
