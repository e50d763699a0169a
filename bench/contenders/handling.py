"""The workers that do nothing with a message but decode and acknowledge it: how each is started and fed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from bench.contenders.programs import environment, node_peer, python_peer, tiw
from bench.contenders.progress import MESSAGES, REPORT
from bench.errors import VoidRoundError
from bench.load.payloads import APP, KEY
from bench.load.queues import fill
from bench.machine.arena import Arena
from broker import ConsumerQueues, queue_name

_CONSUMERS = Path(__file__).resolve().parent / "consumers"

_FILLED_WITHIN_S = 120


class Backlog(Struct, frozen=True, kw_only=True):
    """What a worker is given for one run: `count` messages, and where to say when they are handled."""

    amqp_url: str
    database_url: str
    folder: Path
    count: int

    @property
    def report(self) -> Path:
        """The file that `bench.contenders.progress` writes."""
        return self.folder / "report.json"

    @property
    def settings(self) -> dict[str, str]:
        """What every worker is told."""
        return {MESSAGES: str(self.count), REPORT: str(self.report), "BENCH_AMQP_URL": self.amqp_url}


class HandlingWorker(Struct, frozen=True, kw_only=True):
    """A worker. `expected_per_s` is about what it does on a small machine: it decides how many messages it gets.

    `acknowledged_within_s`: how long after the last message was handled its acknowledgement may take to leave.
    """

    name: str
    queue: str
    command: Callable[[Arena], list[str]]
    settings: Callable[[Backlog], dict[str, str]]
    fill: Callable[[Arena, Backlog], None]
    expected_per_s: int
    acknowledged_within_s: float = 0.5
    is_ours: bool = False


def _ours(name: str, consumer: str, *, expected_per_s: int) -> HandlingWorker:
    queues = ConsumerQueues(consumer=consumer, routing_keys=("OnlineRecordStarted",))

    def settings(backlog: Backlog) -> dict[str, str]:
        return {
            **backlog.settings,
            "TIW_AMQP_URL": backlog.amqp_url,
            "TIW_DATABASE_URL": backlog.database_url,
            "TIW_DATA_DIR": str(backlog.folder / "data"),
            "TIW_ADMIN": "127.0.0.1:0",
            "TIW_CALLBACK_KEYS": json.dumps({str(APP): [KEY]}),
            "TIW_CONSUMERS": str(_CONSUMERS / f"{consumer}.py"),
        }

    def fill_ours(arena: Arena, backlog: Backlog) -> None:
        del arena
        fill(backlog.amqp_url, queues, backlog.count)

    return HandlingWorker(
        name=name,
        queue=queue_name(consumer),
        command=lambda _: tiw("work", consumer),
        settings=settings,
        fill=fill_ours,
        expected_per_s=expected_per_s,
        is_ours=True,
    )


def _peer(name: str, command: Callable[[Arena], list[str]], *, expected_per_s: int) -> HandlingWorker:
    """Return a peer that takes messages as they are: the very messages that ours takes."""
    queues = ConsumerQueues(consumer="bench", routing_keys=())

    def fill_with_ours(arena: Arena, backlog: Backlog) -> None:
        del arena
        fill(backlog.amqp_url, queues, backlog.count)

    return HandlingWorker(
        name=name,
        queue="tiw.bench",
        command=command,
        settings=lambda backlog: {**backlog.settings, "BENCH_QUEUE": "tiw.bench"},
        fill=fill_with_ours,
        expected_per_s=expected_per_s,
    )


def _enveloping(name: str, module: str, *, expected_per_s: int, acknowledged_within_s: float = 0.5) -> HandlingWorker:
    """Return a peer whose messages have an envelope that its own client makes."""

    def settings(backlog: Backlog) -> dict[str, str]:
        return {**backlog.settings, "BENCH_QUEUE": "bench.tasks"}

    def fill_itself(arena: Arena, backlog: Backlog) -> None:
        done = subprocess.run(
            [*python_peer(arena, module), "fill"],
            env=environment(settings(backlog)),
            cwd=backlog.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FILLED_WITHIN_S,
            check=False,
        )
        if done.returncode != 0:
            raise VoidRoundError(f"its queue could not be filled\n{done.stderr[-2000:]}")

    return HandlingWorker(
        name=name,
        queue="bench.tasks",
        command=lambda arena: python_peer(arena, module),
        settings=settings,
        fill=fill_itself,
        expected_per_s=expected_per_s,
        acknowledged_within_s=acknowledged_within_s,
    )


FASTSTREAM = _peer("FastStream", lambda arena: python_peer(arena, "handling_faststream"), expected_per_s=2_500)
TASKIQ = _enveloping("taskiq-aio-pika", "handling_taskiq", expected_per_s=2_000)
DRAMATIQ = _enveloping("Dramatiq", "handling_dramatiq", expected_per_s=4_000)
# Its acknowledgements wait for the next turn of its loop, which comes after a second if there is nothing else to do.
CELERY = _enveloping("Celery", "handling_celery", expected_per_s=1_500, acknowledged_within_s=2.0)
AIO_PIKA = _peer("aio-pika by hand", lambda arena: python_peer(arena, "handling_aio_pika"), expected_per_s=4_000)
AMQPLIB = _peer("Node amqplib", lambda arena: node_peer(arena, "handling"), expected_per_s=20_000)
OURS = _ours("ours", "noop", expected_per_s=15_000)
OURS_BATCH = _ours("ours, batch=100", "noop_batch", expected_per_s=20_000)
OURS_REMEMBERED = _ours("ours, remembered", "noop_remembered", expected_per_s=6_000)

PYTHON_PEERS = (FASTSTREAM, TASKIQ, DRAMATIQ, AIO_PIKA)
WORKERS = (*PYTHON_PEERS, AMQPLIB, OURS, OURS_BATCH)
#: What no target asks for: the slowest, and what the default of a consumer costs.
FURTHER_WORKERS = (CELERY, OURS_REMEMBERED)
