"""All of it on one host: accepted, carried, handled and stored at once; callbacks per second of CPU."""

from functools import partial

from bench.contenders import accepting, storing
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.whole import take_and_store, take_and_store_embedded

NAME = "whole"

BODIES = 30_000

#: A server with the worker that a team would put behind it.
PAIRS = {
    "FastAPI + FastStream + asyncpg": (accepting.FASTAPI_FASTSTREAM, storing.FASTSTREAM),
    "FastAPI + aio-pika + asyncpg": (accepting.FASTAPI_AIO_PIKA, storing.AIO_PIKA),
    "fastify + amqplib + pg": (accepting.FASTIFY_AMQPLIB, storing.AMQPLIB),
    "ours": (accepting.OURS, storing.OURS),
    "ours, before": (accepting.OURS_BEFORE, storing.OURS_BEFORE),
}
EMBEDDED = {
    "ours, embedded": accepting.OURS_EMBEDDED_ALL,
    "ours, embedded, before": accepting.OURS_EMBEDDED_ALL_BEFORE,
}

#: The slow ones have a backlog to work off after each load.
_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Load each and wait until all is stored."""
    bodies = arena.folder / "whole.bodies"
    write_bodies(bodies, signed_callbacks(BODIES, sample="finished"))
    contenders = [
        Contender(name=name, measure=partial(take_and_store, server, worker, bodies), is_before=server.is_before)
        for name, (server, worker) in PAIRS.items()
    ]
    contenders += [
        Contender(name=name, measure=partial(take_and_store_embedded, server, bodies), is_before=server.is_before)
        for name, server in EMBEDDED.items()
    ]
    title = "all of it on one host: finished recordings, from the request to the row; CPU of every part per callback"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
