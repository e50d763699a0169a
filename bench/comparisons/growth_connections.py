"""Growth: what more connections cost."""

from functools import partial

from bench.contenders.accepting import FASTIFY_AMQPLIB, OURS
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "growth-connections"

CONNECTIONS = (1, 10, 100, 1000)
BODIES = 40_000

_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Load ours, and the peer that keeps up with it, over ever more connections."""
    bodies = arena.folder / "connections.bodies"
    write_bodies(bodies, signed_callbacks(BODIES))
    contenders = [
        Contender(
            name=f"{server.name}, {count:,} connection{'s' if count > 1 else ''}",
            measure=partial(load_server, server, bodies, connections=count),
        )
        for server in (OURS, FASTIFY_AMQPLIB)
        for count in CONNECTIONS
    ]
    return compare(NAME, "accepting over ever more connections", contenders, arena, options.at_most(_MOST_ROUNDS))
