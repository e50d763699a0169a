"""Spooling: the broker is away, and each callback is fsynced into the ingest node's spool before it is answered."""

from functools import partial

from bench.contenders.accepting import OURS_EMBEDDED, OURS_SPOOLING
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "spooling"

#: More than either of them takes in a run.
BODIES = 60_000

_MOST_ROUNDS = 2


def run(arena: Arena, options: Options) -> Comparison:
    """Compare the spool with the embedded transport."""
    bodies = arena.folder / "spooling.bodies"
    write_bodies(bodies, signed_callbacks(BODIES))
    title = "spooling: callbacks over 64 connections while the broker is away, answered once fsynced"
    contenders = [
        Contender(name=server.name, measure=partial(load_server, server, bodies))
        for server in (OURS_EMBEDDED, OURS_SPOOLING)
    ]
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))
