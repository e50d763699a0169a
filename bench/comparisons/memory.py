"""Resident memory of an ingest process: when it is ready and idle, and at full load."""

from functools import partial

from bench.contenders.accepting import OURS
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "memory"

BODIES = 40_000

#: What peers take stands in the table of accepting.
SERVERS = (OURS,)


def run(arena: Arena, options: Options) -> Comparison:
    """Load ours as in accepting."""
    bodies = arena.folder / "memory.bodies"
    write_bodies(bodies, signed_callbacks(BODIES))
    contenders = [Contender(name=server.name, measure=partial(load_server, server, bodies)) for server in SERVERS]
    return compare(NAME, "resident memory: idle, and after a load over 64 connections", contenders, arena, options)
