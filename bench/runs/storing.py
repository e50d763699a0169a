"""One run of one worker that stores a backlog: throughput, CPU time per event; and whether all rows are there."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from bench.contenders.migrating import migrate
from bench.contenders.programs import environment
from bench.contenders.storing import Assignment, StoringWorker
from bench.errors import VoidRoundError
from bench.load.queues import count_ready, fill
from bench.machine import proc
from bench.machine.arena import Arena
from bench.machine.installing import PEERS
from bench.machine.running import Running
from bench.results import CPU_US, PER_S
from bench.rounds import Values
from broker import BUILT_IN_CONSUMERS, queue_name

_BEGUN_WITHIN_S = 60.0

#: Whoever stores fewer events per second than this is not waited for.
_SLOWEST_PER_S = 200


def store_backlog(worker: StoringWorker, arena: Arena, *, count: int, event: str = "finished") -> Values:
    """Let `worker` alone store a backlog of `count` events; from the first visible row to the last.

    `event` names the sample and the built-in consumer that takes it. Returns per_s, cpu_us, broker_cpu_us,
    database_cpu_us, loaded_mb, broker_mb. Raises `VoidRoundError` if a row or a message is left.
    """
    with arena.vhost() as amqp_url, arena.database() as database_url, arena.run_folder() as folder:
        assignment = Assignment(amqp_url=amqp_url, database_url=database_url, data_dir=str(folder / "data"))
        tree = arena.tree(is_before=worker.is_before)
        if worker.is_ours:
            migrate(database_url, tree=tree)
        else:
            asyncio.run(make_tables(database_url))
        queues = next(queues for queues in BUILT_IN_CONSUMERS if queues.consumer == event)
        _, last = fill(amqp_url, queues, count, sample=event)
        settings = environment(worker.settings(assignment), tree=tree)
        with Running(worker.command(arena), environ=settings, folder=folder) as running:
            values = asyncio.run(_watch(running, arena, database_url, count=count, last=last))
            time.sleep(0.5)  # for the last acknowledgements to leave
            running.check()
        if left := count_ready(amqp_url, queue_name(event)):
            raise VoidRoundError(f"{left} messages were stored and not acknowledged")
    return values


async def make_tables(database_url: str) -> None:
    """Make the tables of the peers."""
    connection = await asyncpg.connect(plain(database_url))
    try:
        await connection.execute((PEERS / "tables.sql").read_text())
    finally:
        await connection.close()


async def _watch(running: Running, arena: Arena, database_url: str, *, count: int, last: str) -> Values:
    """Look from outside, alike at everybody: at the rows that others can see.

    While rows come in, only the primary key is asked for the one that was published last: rows are not counted before
    it is there.
    """
    stored_within_s = 60 + count / _SLOWEST_PER_S
    connection = await asyncpg.connect(plain(database_url))
    try:
        begun = await connection.prepare("SELECT count(*) FROM (SELECT 1 FROM events LIMIT 1000) AS seen")
        await _until(begun.fetchval, running, within_s=_BEGUN_WITHIN_S, every_s=0.002)
        at_first = await begun.fetchval()
        usage = _Usage(running, arena, watcher=connection.get_server_pid())
        is_there = await connection.prepare("SELECT count(*) FROM events WHERE event_id = $1")
        await _until(lambda: is_there.fetchval(last), running, within_s=stored_within_s, every_s=0.005)
        counted = await connection.prepare("SELECT count(*) >= $1 FROM events")
        await _until(lambda: counted.fetchval(count), running, within_s=stored_within_s, every_s=0.01)
        values = usage.per_message(count - at_first)
        rows = await connection.fetchrow("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM recordings)")
    finally:
        await connection.close()
    if rows is None or tuple(rows) != (count, count):
        raise VoidRoundError(f"{rows} rows in events and recordings, not {count} in each")
    return values


async def _until(
    condition: Callable[[], Awaitable[object]], running: Running, *, within_s: float, every_s: float
) -> None:
    deadline_s = time.monotonic() + within_s
    while not await condition():
        running.check()
        if time.monotonic() > deadline_s:
            raise VoidRoundError(f"not all was stored within {within_s:g} s\n{running.output()}")
        await asyncio.sleep(every_s)


class _Usage:
    """What time and CPU have been used since this was made; `watcher` is who looks into the database for the bench."""

    def __init__(self, running: Running, arena: Arena, *, watcher: int) -> None:
        self._running = running
        self._watcher = watcher
        self._pids = {"broker": arena.rabbitmq.pid, "database": arena.postgres.pid}
        self._began = self._read()

    def per_message(self, count: int) -> Values:
        """Return the values of `count` messages."""
        used = [now - then for now, then in zip(self._read(), self._began, strict=True)]
        elapsed_s, cpu_s, broker_s, database_s = used
        return {
            PER_S: count / elapsed_s,
            CPU_US: cpu_s / count * 1e6,
            "broker_cpu_us": broker_s / count * 1e6,
            "database_cpu_us": database_s / count * 1e6,
            "loaded_mb": self._running.resident_mb,
            "broker_mb": proc.resident_bytes(self._pids["broker"]) / 1e6,
        }

    def _read(self) -> tuple[float, float, float, float]:
        broker_s, database_s = (proc.cpu_s(pid) for pid in self._pids.values())
        return time.monotonic(), self._running.cpu_s, broker_s, database_s - proc.own_cpu_s(self._watcher)


def plain(database_url: str) -> str:
    """Return an address as asyncpg alone wants it."""
    return database_url.replace("postgresql+asyncpg", "postgresql")
