"""Handling with the real work: event and recording stored in PostgreSQL, each once, whatever the order."""

from functools import partial

from bench.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, Values, compare
from bench.storing_load import store_backlog
from bench.storing_workers import WORKERS, StoringWorker

NAME = "handling-real"


def run(arena: Arena, options: Options) -> Comparison:
    """Compare all that store."""
    contenders = [Contender(name=worker.name, measure=partial(_measure, worker)) for worker in WORKERS]
    title = "handling with the real work: finished recordings stored in PostgreSQL, event and recording, each once"
    return compare(NAME, title, contenders, arena, options)


def _measure(worker: StoringWorker, arena: Arena, options: Options) -> Values:
    return store_backlog(worker, arena, count=max(1000, round(worker.expected_per_s * options.seconds)))
