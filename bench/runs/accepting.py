"""One run of one server under load: throughput, CPU time per callback, memory; and whether all of it was kept."""

import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.contenders.accepting import Place, Server
from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.load.payloads import signed_callbacks
from bench.load.wrk import run_wrk
from bench.machine import proc
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US, PER_S
from bench.rounds import Values

PATH = "/callbacks/tiw"

#: As many as 64 connections keep busy.
CONNECTIONS = 64

#: From its start to the first callback that is answered 200.
READY_WITHIN_S = 60.0

#: What the broker still writes down after its last confirm.
_COUNTED_WITHIN_S = 10.0


def load_server(
    server: Server, bodies: Path, arena: Arena, options: Options, *, connections: int = CONNECTIONS
) -> Values:
    """Start `server` alone with a fresh queue, warm it up, load it, and return what was measured.

    per_s, cpu_us, p50_ms, p99_ms, broker_cpu_us (where there is a broker), idle_mb and loaded_mb (resident memory,
    shared pages counted for each process). Raises `VoidRoundError` if a callback was refused or lost.
    """
    with arena.vhost() as amqp_url, arena.run_folder() as folder:
        place = Place(port=free_port(), amqp_url=amqp_url, folder=folder)
        url = f"http://127.0.0.1:{place.port}{PATH}"
        environ = environment(server.settings(place), tree=arena.tree(is_before=server.is_before))
        with Running(server.command(arena), environ=environ, folder=folder) as running:
            running.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
            idle_mb = running.resident_mb
            warm = run_wrk(url, bodies, seconds=options.warm_up_s, connections=connections)
            cpu_s, broker_cpu_s = running.cpu_s, proc.cpu_s(arena.rabbitmq.pid)
            load = run_wrk(
                url, bodies, seconds=options.seconds, connections=connections, begin_at=warm.requests + connections
            )
            cpu_s, broker_cpu_s = running.cpu_s - cpu_s, proc.cpu_s(arena.rabbitmq.pid) - broker_cpu_s
            loaded_mb = running.resident_mb
            running.check()
            if server.kept is not None:
                # One made sure that it was ready. wrk does not count what is on its way when its time is up.
                _check_kept(server, place, 1 + warm.requests + load.requests, on_their_way=2 * connections)
    return {
        PER_S: load.requests_per_s,
        CPU_US: cpu_s / load.requests * 1e6,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "broker_cpu_us": broker_cpu_s / load.requests * 1e6,
        "idle_mb": idle_mb,
        "loaded_mb": loaded_mb,
    }


def accepts(url: str) -> bool:
    """Say whether a signed callback is answered 200 there."""
    body = next(signed_callbacks(1)).body
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
            return bool(answer.status == 200)  # noqa: PLR2004 - success is 200 and nothing else
    except urllib.error.HTTPError as error:
        with error:
            return False
    except OSError:
        return False


def _check_kept(server: Server, place: Place, answered: int, *, on_their_way: int) -> None:
    assert server.kept is not None  # noqa: S101 - the caller has looked
    deadline_s = time.monotonic() + _COUNTED_WITHIN_S
    while True:
        kept = server.kept(place)
        if answered <= kept <= answered + on_their_way:
            return
        if time.monotonic() > deadline_s:
            raise VoidRoundError(f"{answered} callbacks were answered 200, and {kept} were kept")
        time.sleep(0.2)
