"""End to end: from the 200 to the row that others see, at a steady rate."""

from functools import partial

from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.end_to_end import round_trip, send_steadily

NAME = "end-to-end"

#: Callbacks per second; the second has a target.
RATES = (100, 500, 1000)
TARGET_RATE = 500

#: What nobody can be faster than who confirms and commits.
ROUND_TRIP = "a bare confirm, then commit, 500/s"

_MOST_ROUNDS = 3


def run(arena: Arena, options: Options) -> Comparison:
    """Send at each rate to an ingest process, with all built-in consumers in another."""
    rates = RATES if options.is_whole else (TARGET_RATE,)
    contenders = [Contender(name=contender_name(rate), measure=partial(send_steadily, rate)) for rate in rates]
    contenders.append(Contender(name=ROUND_TRIP, measure=partial(round_trip, TARGET_RATE)))
    title = (
        "end to end: from the 200 to the visible row, one ingest and one worker process; a bare round trip beside it"
    )
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))


def contender_name(rate: int) -> str:
    """Return what a rate is called."""
    return f"{rate} callbacks/s"
