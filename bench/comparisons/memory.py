"""Resident memory of an ingest process: when it is ready and idle, and at full load."""

from functools import partial

from bench.accepting_load import load_server
from bench.accepting_servers import FASTIFY_AMQPLIB, OURS
from bench.arena import Arena
from bench.options import Options
from bench.payloads import signed_callbacks
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.wrk import write_bodies

NAME = "memory"

BODIES = 40_000

SERVERS = (OURS, FASTIFY_AMQPLIB)


def run(arena: Arena, options: Options) -> Comparison:
    """Load ours, and the peer that keeps up with it."""
    bodies = arena.folder / "memory.bodies"
    write_bodies(bodies, signed_callbacks(BODIES))
    contenders = [Contender(name=server.name, measure=partial(load_server, server, bodies)) for server in SERVERS]
    return compare(NAME, "resident memory: idle, and after a load over 64 connections", contenders, arena, options)
