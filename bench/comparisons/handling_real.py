"""Handling with the real work: event and recording stored in PostgreSQL, each once, whatever the order."""

from functools import partial

from bench.contenders.storing import WORKERS, StoringWorker
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, Values, compare
from bench.runs.storing import store_backlog

NAME = "handling-real"

_MOST_ROUNDS = 3


def run(arena: Arena, options: Options) -> Comparison:
    """Compare all that store."""
    contenders = [
        Contender(name=worker.name, measure=partial(_measure, worker), is_before=worker.is_before) for worker in WORKERS
    ]
    title = "handling with the real work: finished recordings stored in PostgreSQL, event and recording, each once"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))


def _measure(worker: StoringWorker, arena: Arena, options: Options) -> Values:
    return store_backlog(worker, arena, count=max(1000, round(worker.expected_per_s * options.seconds)))
