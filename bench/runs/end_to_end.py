"""One run at one rate: an ingest and a worker process, and how long after each 200 its row is visible."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import asyncpg
import uvloop

from bench.contenders.migrating import migrate
from bench.contenders.programs import environment, tiw
from bench.contenders.storing import Assignment, our_settings
from bench.errors import VoidRoundError
from bench.load.payloads import APP, Payload, messages, signed_callbacks
from bench.load.queues import count_ready
from bench.load.sender import Sender
from bench.load.visibility import Visibility
from bench.machine import proc
from bench.machine.arena import Arena, free_port
from bench.machine.installing import PEERS
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US
from bench.rounds import Values
from bench.runs.accepting import PATH, READY_WITHIN_S, accepts
from bench.runs.storing import make_tables, plain
from bench.statistics import percentile
from broker import ConsumerQueues, Message
from broker.amqp.transport import AmqpTransport

#: As many as ours and the peers have.
_CONNECTIONS = 10

#: The row of the last callback.
_VISIBLE_WITHIN_S = 30.0


def _percentiles(values_ms: list[float]) -> Values:
    return {f"p{percent:g}_ms": percentile(values_ms, percent) for percent in (50, 99, 99.9)}


def send_steadily(rate: int, arena: Arena, options: Options) -> Values:
    """Send `rate` callbacks a second to one ingest process, with all built-in consumers in another.

    p50_ms, p99_ms, p99.9_ms; cpu_us (of ingest), broker_cpu_us, worker_cpu_us, database_cpu_us. Raises
    `VoidRoundError` if a callback was refused or its row does not come.
    """
    with arena.vhost() as amqp_url, arena.database() as database_url, contextlib.ExitStack() as stack:
        migrate(database_url)
        # A tenth of the seconds goes before, so that what runs for the first time does not count.
        payloads = list(signed_callbacks(round(rate * options.seconds * 1.1)))
        address = f"127.0.0.1:{free_port()}"
        running = []
        for arguments in (("work",), ("ingest",)):
            folder = stack.enter_context(arena.run_folder())
            assignment = Assignment(amqp_url=amqp_url, database_url=database_url, data_dir=str(folder / "data"))
            settings = {**our_settings(assignment), "TIW_HTTP": address}
            running.append(stack.enter_context(Running(tiw(*arguments), environ=environment(settings), folder=folder)))
        url = f"http://{address}{PATH}"
        running[1].wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
        # The one that was accepted just now is taken as soon as the worker is there.
        running[0].wait_until(
            lambda: count_ready(amqp_url, "tiw.started") == 0, what="a worker at its queue", within_s=READY_WITHIN_S
        )

        def used(watcher: int) -> Values:
            return {
                CPU_US: running[1].cpu_s,
                "broker_cpu_us": proc.cpu_s(arena.rabbitmq.pid),
                "worker_cpu_us": running[0].cpu_s,
                "database_cpu_us": proc.cpu_s(arena.postgres.pid) - proc.own_cpu_s(watcher),
            }

        values = uvloop.run(_send(url, database_url, payloads, rate=rate, used=used))
        for one in running:
            one.check()
    return values


def round_trip(rate: int, arena: Arena, options: Options) -> Values:
    """Publish `rate` messages a second, commit a row for each once it is confirmed, and watch as above.

    What this machine needs at least, from the publish to the visible row: one quorum queue's confirm, one commit, and
    the eyes of the same observer. p50_ms, p99_ms, p99.9_ms.
    """
    with arena.vhost() as amqp_url, arena.database() as database_url:
        asyncio.run(make_tables(database_url))
        sending = list(messages(round(rate * options.seconds * 1.1)))
        return uvloop.run(_confirm_and_commit(amqp_url, database_url, sending, rate=rate))


async def _confirm_and_commit(amqp_url: str, database_url: str, sending: list[Message], *, rate: int) -> Values:
    queues = ConsumerQueues(consumer="bench", routing_keys=())
    insert = (PEERS / "insert_event.sql").read_text()
    began_at_s: dict[str, float] = {}
    async with (
        AmqpTransport([amqp_url], consumers=[queues], confirm_timeout_s=10) as transport,
        asyncpg.create_pool(plain(database_url), min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool,
        Visibility(database_url) as visibility,
    ):
        await transport.wait_ready()

        async def go(message: Message) -> None:
            began_at_s[message.event_id] = time.monotonic()
            visibility.expect(message.event_id)
            await transport.send(queues.consumer, message)
            # One statement is one transaction: its result comes after the commit.
            values = (message.event_id, message.routing_key, APP, message.event_id, 0, message.body)
            await pool.fetchval(insert, *values)

        async with asyncio.timeout(len(sending) / rate + _VISIBLE_WITHIN_S), asyncio.TaskGroup() as tasks:
            first_s = time.monotonic()
            for number, message in enumerate(sending):
                await asyncio.sleep(max(0.0, first_s + number / rate - time.monotonic()))
                tasks.create_task(go(message))
        if not await visibility.all_seen(within_s=_VISIBLE_WITHIN_S):
            raise VoidRoundError("rows were committed and are not visible")
        counted = sending[len(sending) // 11 :]
        seen_at_s = visibility.seen_at_s
        return _percentiles([(seen_at_s[one.event_id] - began_at_s[one.event_id]) * 1e3 for one in counted])


async def _send(
    url: str, database_url: str, payloads: list[Payload], *, rate: int, used: Callable[[int], Values]
) -> Values:
    async with Visibility(database_url) as visibility, Sender(url) as sender:
        before = used(visibility.server_pid)
        async with asyncio.timeout(len(payloads) / rate + _VISIBLE_WITHIN_S):
            sent = await sender.send_all(payloads, per_s=rate, on_due=visibility.expect)
        if refused := [one.status for one in sent if one.status != 200]:  # noqa: PLR2004 - nothing else is success
            raise VoidRoundError(f"{len(refused)} callbacks were answered {sorted(set(refused))}")
        if not await visibility.all_seen(within_s=_VISIBLE_WITHIN_S):
            raise VoidRoundError("callbacks were answered 200 and their rows are not visible")
        costs = {name: (s - before[name]) / len(sent) * 1e6 for name, s in used(visibility.server_pid).items()}
        seen_at_s = visibility.seen_at_s
        counted = sent[len(sent) // 11 :]
        # A row can be there before its 200 has been read.
        latencies_ms = [max(0.0, seen_at_s[one.event_id] - one.answered_at_s) * 1e3 for one in counted]
        return {**_percentiles(latencies_ms), **costs}
