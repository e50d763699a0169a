"""Latency: a fixed rate over a thousand connections, whatever the answers take."""

from functools import partial

from bench.contenders.accepting import FASTIFY_AMQPLIB, GO_AMQP091, OURS
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.latency import answer_steadily

NAME = "latency"

#: What all of them carry on two small processors, without being idle.
RATE = 3_000
CONNECTIONS = 1_000

SERVERS = (FASTIFY_AMQPLIB, GO_AMQP091, OURS)

_MOST_ROUNDS = 3


def run(arena: Arena, options: Options) -> Comparison:
    """Ask those that carry the rate."""
    contenders = [
        Contender(
            name=server.name,
            measure=partial(answer_steadily, server, rate=RATE, connections=CONNECTIONS),
        )
        for server in SERVERS
    ]
    title = f"latency: {RATE:,} callbacks a second over {CONNECTIONS:,} connections, from when each was due"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
