"""A lonely event: one at a time, as they come on a quiet day, each stored in PostgreSQL with its recording."""

from functools import partial

from bench.contenders.storing import AIO_PIKA, AMQPLIB, OURS, OURS_BEFORE
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.lonely import store_one_at_a_time

NAME = "lonely"

WORKERS = (AIO_PIKA, AMQPLIB, OURS, OURS_BEFORE)

_MOST_ROUNDS = 3


def run(arena: Arena, options: Options) -> Comparison:
    """Give each worker one event at a time."""
    contenders = [
        Contender(name=worker.name, measure=partial(store_one_at_a_time, worker), is_before=worker.is_before)
        for worker in WORKERS
    ]
    title = "a lonely event: one at a time into PostgreSQL, event and recording; the whole worker's CPU"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
