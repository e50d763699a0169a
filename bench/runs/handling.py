"""One run of one worker that drains a queue: throughput, CPU time per message; and whether all was acknowledged."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.contenders.handling import Backlog, HandlingWorker
from bench.contenders.migrating import migrate
from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.load.queues import count_ready
from bench.machine import proc
from bench.machine.arena import Arena
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US, PER_S
from bench.rounds import Values

#: Enough for the fastest; filling a queue takes longer than draining it.
_MOST_MESSAGES = 15_000

_HANDLED_WITHIN_S = 120.0

#: A client that does not wait for confirms is done before the broker is.
_FILLED_WITHIN_S = 20.0


def drain(worker: HandlingWorker, arena: Arena, options: Options) -> Values:
    """Let `worker` alone drain a queue of its own; from the first message that it handles to the last.

    per_s, cpu_us (of the process that handles), broker_cpu_us, loaded_mb. Raises `VoidRoundError` if a message is left.
    """
    count = min(_MOST_MESSAGES, round(worker.expected_per_s * options.seconds))
    with _place(worker, arena, count) as backlog:
        worker.fill(arena, backlog)
        _wait_filled(worker, backlog)
        broker_cpu_s = proc.cpu_s(arena.rabbitmq.pid)
        settings = environment(worker.settings(backlog))
        with Running(worker.command(arena), environ=settings, folder=backlog.folder) as running:
            running.wait_until(backlog.report.exists, what="all messages handled", within_s=_HANDLED_WITHIN_S)
            broker_cpu_s = proc.cpu_s(arena.rabbitmq.pid) - broker_cpu_s
            loaded_mb = running.resident_mb
            time.sleep(worker.acknowledged_within_s)
            running.check()
        # What was not acknowledged is ready again now that its consumer has gone.
        if left := count_ready(backlog.amqp_url, worker.queue):
            raise VoidRoundError(f"{left} messages were handled and not acknowledged")
        report = json.loads(backlog.report.read_bytes())
    return {
        PER_S: report["messages"] / report["elapsed_s"],
        CPU_US: report["cpu_s"] / report["messages"] * 1e6,
        "broker_cpu_us": broker_cpu_s / count * 1e6,
        "loaded_mb": loaded_mb,
    }


def _wait_filled(worker: HandlingWorker, backlog: Backlog) -> None:
    deadline_s = time.monotonic() + _FILLED_WITHIN_S
    while (ready := count_ready(backlog.amqp_url, worker.queue)) != backlog.count:
        if time.monotonic() > deadline_s:
            raise VoidRoundError(f"{ready} messages are ready, not {backlog.count}")
        time.sleep(0.1)


@contextmanager
def _place(worker: HandlingWorker, arena: Arena, count: int) -> Iterator[Backlog]:
    with arena.vhost() as amqp_url, arena.database() as database_url, arena.run_folder() as folder:
        if worker.is_ours:
            migrate(database_url)
        yield Backlog(amqp_url=amqp_url, database_url=database_url, folder=folder, count=count)
