"""Starting: how long `--help` takes, beside an interpreter that does nothing."""

import subprocess
import sys
import time
from functools import partial

from bench.contenders.programs import environment, tiw
from bench.errors import BenchError
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, Values, compare

NAME = "start-up"

#: In milliseconds: the metric of this comparison.
ELAPSED_MS = "elapsed_ms"

#: They are over in a moment: four for each round of the others.
STARTS_PER_ROUND = 4

HELP = "tiw --help"
INGEST_HELP = "tiw ingest --help"
PYTHON = "python -c pass"

COMMANDS = {
    HELP: tiw("--help"),
    INGEST_HELP: tiw("ingest", "--help"),
    PYTHON: [sys.executable, "-P", "-c", "pass"],
}


def run(arena: Arena, options: Options) -> Comparison:
    """Start each command in turn, 16 times with the usual rounds."""
    contenders = [Contender(name=name, measure=partial(_start, command)) for name, command in COMMANDS.items()]
    often = Options(rounds=options.rounds * STARTS_PER_ROUND)
    for contender in contenders:
        contender.measure(arena, often)  # compiles what has changed
    return compare(NAME, "starting: until the command has ended", contenders, arena, often)


def _start(command: list[str], arena: Arena, options: Options) -> Values:
    del arena, options
    environ = environment({})
    began_s = time.perf_counter()
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    elapsed_s = time.perf_counter() - began_s
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return {ELAPSED_MS: elapsed_s * 1e3}
