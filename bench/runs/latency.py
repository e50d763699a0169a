"""One run of one server at a fixed rate: how long answers take, from when each callback was due."""

import asyncio
import gc

import uvloop

from bench.contenders.accepting import Place, Server
from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.load.payloads import Payload, signed_callbacks
from bench.load.sender import Sender, Sent
from bench.machine import proc
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US
from bench.rounds import Values
from bench.runs.accepting import PATH, READY_WITHIN_S, accepts
from bench.statistics import percentile

_ANSWERED_WITHIN_S = 10.0


def answer_steadily(server: Server, arena: Arena, options: Options, *, rate: int, connections: int) -> Values:
    """Send `rate` callbacks a second, evenly, over `connections` connections in turn, whatever the answers take.

    p50_ms, p99_ms, p99.9_ms, cpu_us, broker_cpu_us, loaded_mb. Raises `VoidRoundError` if a callback was refused.
    """
    payloads = list(signed_callbacks(round(rate * (options.warm_up_s + options.seconds))))
    leave_out = round(rate * options.warm_up_s)
    with arena.vhost() as amqp_url, arena.run_folder() as folder:
        place = Place(port=free_port(), amqp_url=amqp_url, folder=folder)
        url = f"http://127.0.0.1:{place.port}{PATH}"
        environ = environment(server.settings(place), tree=arena.tree(is_before=server.is_before))
        with Running(server.command(arena), environ=environ, folder=folder) as running:
            running.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
            cpu_s, broker_cpu_s = running.cpu_s, proc.cpu_s(arena.rabbitmq.pid)
            sent = uvloop.run(_send(url, payloads, rate=rate, connections=connections))
            cpu_s, broker_cpu_s = running.cpu_s - cpu_s, proc.cpu_s(arena.rabbitmq.pid) - broker_cpu_s
            loaded_mb = running.resident_mb
            running.check()
    if refused := {one.status for one in sent} - {200}:
        raise VoidRoundError(f"callbacks were answered {sorted(refused)}")
    latencies_ms = [one.latency_ms for one in sent[leave_out:]]
    return {
        **{f"p{percent:g}_ms": percentile(latencies_ms, percent) for percent in (50, 99, 99.9)},
        CPU_US: cpu_s / len(sent) * 1e6,
        "broker_cpu_us": broker_cpu_s / len(sent) * 1e6,
        "loaded_mb": loaded_mb,
    }


async def _send(url: str, payloads: list[Payload], *, rate: int, connections: int) -> list[Sent]:
    # A collection of all that this process holds would look like a slow server.
    gc.collect()
    gc.disable()
    try:
        async with Sender(url, connections=connections) as sender:
            async with asyncio.timeout(len(payloads) / rate + _ANSWERED_WITHIN_S):
                return await sender.send_all(payloads, per_s=rate, on_due=lambda _: None)
    except (TimeoutError, OSError) as error:
        raise VoidRoundError(f"not every callback was answered: {error!r}") from error
    finally:
        gc.enable()
