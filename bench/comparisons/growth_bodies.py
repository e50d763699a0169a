"""Growth: what longer bodies cost."""

from functools import partial
from pathlib import Path

from bench.contenders.accepting import FASTIFY_AMQPLIB, OURS
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "growth-bodies"

#: KiB; the first is about what the shortest callbacks have.
SIZES_KIB = (0.3, 4, 64, 512)

_MOST_BODIES = 40_000
_MOST_BYTES = 64 * 1024 * 1024


def run(arena: Arena, options: Options) -> Comparison:
    """Load ours, and the peer that keeps up with it, with ever longer bodies."""
    files = {size_kib: _write(arena.folder, size_kib) for size_kib in SIZES_KIB}
    contenders = [
        Contender(name=f"{server.name}, {size_kib:g} KiB", measure=partial(load_server, server, files[size_kib]))
        for server in (OURS, FASTIFY_AMQPLIB)
        for size_kib in SIZES_KIB
    ]
    return compare(NAME, "accepting ever longer bodies, over 64 connections", contenders, arena, options)


def _write(folder: Path, size_kib: float) -> Path:
    path = folder / f"{size_kib:g}-kib.bodies"
    size = round(size_kib * 1024)
    count = min(_MOST_BODIES, _MOST_BYTES // size)
    is_short = size_kib == SIZES_KIB[0]
    write_bodies(
        path,
        signed_callbacks(count, sample="started" if is_short else "finished", at_least_bytes=0 if is_short else size),
    )
    return path
