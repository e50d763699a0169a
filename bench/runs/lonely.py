"""One run of one worker that is given one event at a time: what each costs the worker, broker and database."""

import asyncio
import time
from pathlib import Path

import asyncpg

from bench.contenders.migrating import migrate
from bench.contenders.programs import environment
from bench.contenders.storing import CONSUMER, Assignment, StoringWorker
from bench.errors import VoidRoundError
from bench.load.payloads import messages
from bench.load.queues import count_ready
from bench.machine import proc
from bench.machine.arena import Arena
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US
from bench.rounds import Values
from bench.runs.storing import make_tables, plain
from bench.statistics import percentile
from broker import BUILT_IN_CONSUMERS, queue_name
from broker.amqp.transport import AmqpTransport

#: Events per second of `options.seconds`.
_PER_S = 80

#: After a row is there: for its acknowledgement to leave, and the worker to come to rest.
_REST_S = 0.004

#: Sent before it counts: every connection is open and every statement prepared.
_WARM_UP = 40

_FIRST_WITHIN_S = 60.0
_STORED_WITHIN_S = 10.0


def store_one_at_a_time(worker: StoringWorker, arena: Arena, options: Options) -> Values:
    """Publish an event, wait until its row is visible, let the worker rest, publish the next.

    cpu_us (of the whole worker), database_cpu_us (without the connection that looks), broker_cpu_us, p50_ms (from the
    confirm to the row). Raises `VoidRoundError` if a row or a message is left.
    """
    with arena.vhost() as amqp_url, arena.database() as database_url, arena.run_folder() as folder:
        assignment = Assignment(amqp_url=amqp_url, database_url=database_url, data_dir=str(folder / "data"))
        tree = arena.tree(is_before=worker.is_before)
        if worker.is_ours:
            migrate(database_url, tree=tree)
        else:
            asyncio.run(make_tables(database_url))
        count = round(_PER_S * options.seconds)
        environ = environment(worker.settings(assignment), tree=tree)
        values = asyncio.run(_feed(worker, environ, arena, assignment, count=count))
        if left := count_ready(amqp_url, queue_name(CONSUMER)):
            raise VoidRoundError(f"{left} messages were stored and not acknowledged")
    return values


async def _feed(
    worker: StoringWorker, environ: dict[str, str], arena: Arena, assignment: Assignment, *, count: int
) -> Values:
    queues = next(queues for queues in BUILT_IN_CONSUMERS if queues.consumer == CONSUMER)
    looking = await asyncpg.connect(plain(assignment.database_url))
    waits_ms: list[float] = []
    try:
        async with AmqpTransport([assignment.amqp_url], consumers=[queues], confirm_timeout_s=10) as transport:
            # It declares the queue, which a peer expects to be there.
            await transport.wait_ready()
            with Running(worker.command(arena), environ=environ, folder=Path(assignment.data_dir).parent) as running:
                pids = {CPU_US: running.pid, "broker_cpu_us": arena.rabbitmq.pid, "database_cpu_us": arena.postgres.pid}
                watcher = looking.get_server_pid()
                used = dict.fromkeys(pids, 0.0)
                is_there = await looking.prepare("SELECT count(*) FROM events WHERE event_id = $1")
                for number, message in enumerate(messages(_WARM_UP + count, sample=CONSUMER)):
                    if number == _WARM_UP:
                        used = _used(pids, watcher)
                    await transport.send(CONSUMER, message)
                    began_s = time.monotonic()
                    within_s = _STORED_WITHIN_S if number else _FIRST_WITHIN_S
                    while not await is_there.fetchval(message.event_id):
                        running.check()
                        if time.monotonic() > began_s + within_s:
                            raise VoidRoundError(f"an event was not stored within {within_s:g} s\n{running.output()}")
                        await asyncio.sleep(0.001)
                    waits_ms.append((time.monotonic() - began_s) * 1e3)
                    await asyncio.sleep(_REST_S)
                used = {name: now - used[name] for name, now in _used(pids, watcher).items()}
                running.check()
    finally:
        await looking.close()
    return {**{name: s / count * 1e6 for name, s in used.items()}, "p50_ms": percentile(waits_ms[_WARM_UP:], 50)}


def _used(pids: dict[str, int], watcher: int) -> dict[str, float]:
    """Return the CPU seconds of each; whoever looks on behalf of the bench is no part of the database."""
    used = {name: proc.cpu_s(pid) for name, pid in pids.items()}
    used["database_cpu_us"] -= proc.own_cpu_s(watcher)
    return used
