"""The demo, as somebody sees it who tries this out: not the first time, which installs."""

import subprocess
import time
from contextlib import suppress

from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.machine.arena import Arena
from bench.machine.installing import ROOT
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, Values, compare

NAME = "demo"

DEMO = "./dev demo"
ELAPSED_S = "elapsed_s"

_MOST_ROUNDS = 2
_WITHIN_S = 120


def run(arena: Arena, options: Options) -> Comparison:
    """Run it once for what is compiled and cached, then again."""
    contender = Contender(name=DEMO, measure=_demonstrate)
    with suppress(VoidRoundError):
        _demonstrate(arena, options)
    title = "the demo: classes through the whole pipeline, until every callback is accounted for"
    return compare(NAME, title, [contender], arena, options.at_most(_MOST_ROUNDS))


def _demonstrate(arena: Arena, options: Options) -> Values:
    del arena, options
    began_s = time.perf_counter()
    done = subprocess.run(
        [str(ROOT / "dev"), "demo"],
        env=environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_WITHIN_S,
    )
    elapsed_s = time.perf_counter() - began_s
    if done.returncode != 0:
        raise VoidRoundError(f"./dev demo ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return {ELAPSED_S: elapsed_s}
