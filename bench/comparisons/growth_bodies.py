"""Growth: what longer bodies cost."""

from functools import partial
from pathlib import Path

from bench.contenders.accepting import FASTIFY_AMQPLIB, OURS, Server
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "growth-bodies"

#: KiB; each has a target.
SIZES_KIB = (4, 64, 512)
#: About what the shortest callbacks have.
SHORTEST_KIB = 0.3

#: As many as keep both servers busy and within what is in flight at most: ours refuses beyond 64 MiB.
CONNECTIONS = {SHORTEST_KIB: 64, 4: 64, 64: 64, 512: 16}

_MOST_ROUNDS = 2
_MOST_BODIES = 40_000
_MOST_BYTES = 64 * 1024 * 1024


def run(arena: Arena, options: Options) -> Comparison:
    """Load ours, and the peer that keeps up with it, with ever longer bodies."""
    sizes_kib = (SHORTEST_KIB, *SIZES_KIB) if options.is_whole else SIZES_KIB
    files = {size_kib: _write(arena.folder, size_kib) for size_kib in sizes_kib}
    contenders = [
        Contender(
            name=contender_name(server, size_kib),
            measure=partial(load_server, server, files[size_kib], connections=CONNECTIONS[size_kib]),
        )
        for size_kib in sizes_kib
        for server in (FASTIFY_AMQPLIB, OURS)
    ]
    title = "accepting ever longer bodies, over 64 connections; over 16 where they have 512 KiB"
    return compare(NAME, title, contenders, arena, options.at_most(_MOST_ROUNDS))


def contender_name(server: Server, size_kib: float) -> str:
    """Return what a server with bodies of one size is called."""
    return f"{server.name}, {size_kib:g} KiB"


def _write(folder: Path, size_kib: float) -> Path:
    path = folder / f"{size_kib:g}-kib.bodies"
    size = round(size_kib * 1024)
    count = min(_MOST_BODIES, _MOST_BYTES // size)
    is_short = size_kib == SHORTEST_KIB
    write_bodies(
        path,
        signed_callbacks(count, sample="started" if is_short else "finished", at_least_bytes=0 if is_short else size),
    )
    return path
