"""One run of all of it on one host: callbacks are accepted and stored at once, and every process' CPU counts."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
from msgspec import Struct

from bench.contenders.accepting import Place, Server
from bench.contenders.migrating import migrate
from bench.contenders.programs import environment
from bench.contenders.storing import Assignment, StoringWorker
from bench.errors import VoidRoundError
from bench.load.wrk import run_wrk
from bench.machine import proc
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US, PER_S
from bench.rounds import Values
from bench.runs.accepting import CONNECTIONS, PATH, READY_WITHIN_S, accepts
from bench.runs.sitting import count_stored
from bench.runs.storing import make_tables, plain

#: Whoever stores fewer events per second than this is not waited for.
_SLOWEST_PER_S = 200

#: More come within this time, or none.
_LOOKS_EVERY_S = 0.1

#: Where the peers' servers put what they accept.
_PEERS_QUEUE = "bench.callbacks"

PER_CPU_S = "per_cpu_s"


class _Place(Struct, frozen=True, kw_only=True):
    """What runs: the CPU of each part in seconds, and how many events are stored."""

    url: str
    running: list[Running]
    used: Callable[[], dict[str, float]]
    stored: Callable[[], int]


def take_and_store(server: Server, worker: StoringWorker, bodies: Path, arena: Arena, options: Options) -> Values:
    """Load `server` while `worker` stores what it has accepted, and wait until all of it is stored.

    per_s (from the first callback to the last visible row), per_cpu_s (callbacks per second of CPU, of server, broker,
    worker and database together), cpu_us, broker_cpu_us, worker_cpu_us, database_cpu_us. Raises `VoidRoundError` if an
    event is missing.
    """
    with _servers(server, worker, arena) as place:
        return _measure(place, bodies, options)


def take_and_store_embedded(server: Server, bodies: Path, arena: Arena, options: Options) -> Values:
    """Do the same with everything in one process."""
    with arena.run_folder() as folder:
        at = Place(port=free_port(), amqp_url="", folder=folder)
        url = f"http://127.0.0.1:{at.port}{PATH}"
        environ = environment(server.settings(at), tree=arena.tree(is_before=server.is_before))
        with Running(server.command(arena), environ=environ, folder=folder) as running:
            running.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
            place = _Place(
                url=url,
                running=[running],
                used=lambda: {CPU_US: running.cpu_s},
                stored=lambda: count_stored(folder / "data" / "store.db"),
            )
            return _measure(place, bodies, options)


def _measure(place: _Place, bodies: Path, options: Options) -> Values:
    warm = run_wrk(place.url, bodies, seconds=options.warm_up_s, connections=CONNECTIONS)
    before, _ = _wait_stored(place, warm.requests)
    used, began_s = place.used(), time.monotonic()
    load = run_wrk(
        place.url,
        bodies,
        seconds=options.seconds,
        connections=CONNECTIONS,
        begin_at=warm.requests + 2 * CONNECTIONS,
    )
    stored, reached_s = _wait_stored(place, before + load.requests)
    count, elapsed_s = stored - before, reached_s - began_s
    used = {name: now - used[name] for name, now in place.used().items()}
    for one in place.running:
        one.check()
    return {
        PER_S: count / elapsed_s,
        PER_CPU_S: count / sum(used.values()),
        **{name: s / count * 1e6 for name, s in used.items()},
    }


def _wait_stored(place: _Place, at_least: int) -> tuple[int, float]:
    """Return how many events are stored, once it is `at_least` so many and no more come, and since when."""
    deadline_s = time.monotonic() + READY_WITHIN_S + at_least / _SLOWEST_PER_S
    seen, reached_s = -1, 0.0
    while (stored := place.stored()) < at_least or stored != seen:
        if stored != seen:
            seen, reached_s = stored, time.monotonic()
        for one in place.running:
            one.check()
        if time.monotonic() > deadline_s:
            raise VoidRoundError(f"{at_least} callbacks were answered 200, and {stored} events are stored")
        time.sleep(_LOOKS_EVERY_S)
    return stored, reached_s


@contextmanager
def _servers(server: Server, worker: StoringWorker, arena: Arena) -> Iterator[_Place]:
    tree = arena.tree(is_before=server.is_before)
    with arena.vhost() as amqp_url, arena.database() as database_url, ExitStack() as stack:
        if worker.is_ours:
            migrate(database_url, tree=tree)
        else:
            asyncio.run(make_tables(database_url))
        folders = [stack.enter_context(arena.run_folder()) for _ in range(2)]
        at = Place(port=free_port(), amqp_url=amqp_url, folder=folders[0])
        url = f"http://127.0.0.1:{at.port}{PATH}"
        environ = environment({**server.settings(at), "TIW_DATABASE_URL": database_url}, tree=tree)
        taking = stack.enter_context(Running(server.command(arena), environ=environ, folder=folders[0]))
        taking.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
        assignment = Assignment(
            amqp_url=amqp_url, database_url=database_url, data_dir=str(folders[1] / "data"), queue=_PEERS_QUEUE
        )
        environ = environment(worker.settings(assignment), tree=tree)
        storing = stack.enter_context(Running(worker.command(arena), environ=environ, folder=folders[1]))
        runner = stack.enter_context(asyncio.Runner())
        looking = runner.run(asyncpg.connect(plain(database_url)))
        stack.callback(lambda: runner.run(looking.close()))
        watcher = looking.get_server_pid()
        yield _Place(
            url=url,
            running=[taking, storing],
            used=lambda: {
                CPU_US: taking.cpu_s,
                "broker_cpu_us": proc.cpu_s(arena.rabbitmq.pid),
                "worker_cpu_us": storing.cpu_s,
                # Who looks is no part of it.
                "database_cpu_us": proc.cpu_s(arena.postgres.pid) - proc.own_cpu_s(watcher),
            },
            stored=lambda: int(runner.run(looking.fetchval("SELECT count(*) FROM events"))),
        )
