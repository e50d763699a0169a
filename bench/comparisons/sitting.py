"""Sitting: `tiw up` on a quiet day, embedded: idle, and callbacks that come one at a time."""

from functools import partial

from bench.contenders.accepting import OURS_EMBEDDED_ALL
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.sitting import sit

NAME = "sitting"

UP = "tiw up"

#: One sits for twenty seconds with the usual ones, and what it does then hardly varies.
_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Let it sit, and send it what comes to a school."""
    contenders = [Contender(name=UP, measure=partial(sit, OURS_EMBEDDED_ALL))]
    title = "sitting: tiw up, idle; callbacks one at a time, stored; a day with 2,000 of them, extrapolated"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
