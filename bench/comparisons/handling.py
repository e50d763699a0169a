"""Handling without work: a queue is drained by one process that decodes, counts and acknowledges each message."""

from functools import partial

from bench.contenders.handling import FURTHER_WORKERS, WORKERS
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.handling import drain

NAME = "handling"

_MOST_ROUNDS = 3


def run(arena: Arena, options: Options) -> Comparison:
    """Compare all that handle."""
    workers = (*WORKERS, *FURTHER_WORKERS) if options.is_whole else WORKERS
    contenders = [Contender(name=worker.name, measure=partial(drain, worker)) for worker in workers]
    title = "handling without work: a quorum queue drained by one process, each message decoded and acknowledged"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
