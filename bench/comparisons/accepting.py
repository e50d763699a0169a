"""Accepting: authenticate, decode, publish, wait for the confirm, answer 200."""

from functools import partial
from pathlib import Path

from bench.contenders.accepting import FURTHER_SERVERS, SERVERS, Server
from bench.load.payloads import signed_callbacks
from bench.load.wrk import write_bodies
from bench.machine.arena import Arena
from bench.options import Options
from bench.results import Comparison
from bench.rounds import Contender, compare
from bench.runs.accepting import load_server

NAME = "accepting"

#: More than any of them takes in a run, so that hardly one is sent twice to the same server.
BODIES = 60_000


def run(arena: Arena, options: Options) -> Comparison:
    """Compare all that accept."""
    bodies = arena.folder / "accepting.bodies"
    write_bodies(bodies, signed_callbacks(BODIES))
    title = "accepting: callbacks over 64 connections, answered once confirmed by a quorum queue or fsynced"
    servers = (*SERVERS, *FURTHER_SERVERS) if options.is_whole else SERVERS
    return compare(NAME, title, [_contender(server, bodies) for server in servers], arena, options)


def _contender(server: Server, bodies: Path) -> Contender:
    return Contender(name=server.name, measure=partial(load_server, server, bodies), is_before=server.is_before)
