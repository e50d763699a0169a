"""Growth: what a backlog costs, when a worker comes back after an outage."""

from functools import partial

from bench.contenders.storing import OURS_ALL
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, Values, compare
from bench.runs.storing import store_backlog

NAME = "growth-backlog"

BACKLOGS = (10_000, 100_000)

#: Takes minutes: one round, and with --all only.
LARGEST = 1_000_000

_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Let all built-in consumers in one process drain ever longer queues into PostgreSQL."""
    title = "backlogs drained into PostgreSQL by one worker process"
    comparison = compare(NAME, title, [_contender(count) for count in BACKLOGS], arena, options.at_most(_MOST_ROUNDS))
    if options.is_whole:
        once = compare(NAME, title, [_contender(LARGEST)], arena, Options(rounds=1, seconds=options.seconds))
        comparison.contestants += once.contestants
    return comparison


def _contender(count: int) -> Contender:
    return Contender(name=f"{count:,} events", measure=partial(_measure, count))


def _measure(count: int, arena: Arena, options: Options) -> Values:
    del options
    return store_backlog(OURS_ALL, arena, count=count, event="started")
