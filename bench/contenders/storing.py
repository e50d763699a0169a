"""The workers that store event and recording in PostgreSQL: how each is started."""

import json
from collections.abc import Callable

from msgspec import Struct

from bench.contenders.programs import node_peer, python_peer, tiw
from bench.load.payloads import APP, KEY
from bench.machine.arena import Arena
from bench.machine.installing import PEERS


class Assignment(Struct, frozen=True, kw_only=True):
    """What a worker is given for one run."""

    amqp_url: str
    database_url: str
    data_dir: str
    #: Where the peers take from; ours know theirs.
    queue: str = "tiw.finished"


class StoringWorker(Struct, frozen=True, kw_only=True):
    """A worker. `expected_per_s` is about what it does on a small machine: it decides how many messages it gets.

    `is_before`: its code is that of the commit to compare with.
    """

    name: str
    command: Callable[[Arena], list[str]]
    settings: Callable[[Assignment], dict[str, str]]
    expected_per_s: int
    is_ours: bool = False
    is_before: bool = False


#: The built-in consumer; the peers take from its queue.
CONSUMER = "finished"


def _peer_settings(assignment: Assignment) -> dict[str, str]:
    return {
        "BENCH_AMQP_URL": assignment.amqp_url,
        "BENCH_QUEUE": assignment.queue,
        "BENCH_DATABASE_URL": assignment.database_url.replace("postgresql+asyncpg", "postgresql"),
        "BENCH_SQL": str(PEERS),
    }


def our_settings(assignment: Assignment) -> dict[str, str]:
    """Return what our own workers are told."""
    return {
        "TIW_AMQP_URL": assignment.amqp_url,
        "TIW_DATABASE_URL": assignment.database_url,
        "TIW_DATA_DIR": assignment.data_dir,
        "TIW_CALLBACK_KEYS": json.dumps({str(APP): [KEY]}),
        "TIW_ADMIN": "127.0.0.1:0",
    }


FASTSTREAM = StoringWorker(
    name="FastStream + asyncpg",
    command=lambda arena: python_peer(arena, "storing_faststream"),
    settings=_peer_settings,
    expected_per_s=700,
)
AIO_PIKA = StoringWorker(
    name="aio-pika + asyncpg",
    command=lambda arena: python_peer(arena, "storing_aio_pika"),
    settings=_peer_settings,
    expected_per_s=900,
)
AMQPLIB = StoringWorker(
    name="Node amqplib + pg",
    command=lambda arena: node_peer(arena, "storing"),
    settings=_peer_settings,
    expected_per_s=1_200,
)
OURS = StoringWorker(
    name="ours",
    command=lambda _: tiw("work", CONSUMER),
    settings=our_settings,
    expected_per_s=5_000,
    is_ours=True,
)
OURS_BEFORE = StoringWorker(
    name="ours, before",
    command=OURS.command,
    settings=our_settings,
    expected_per_s=OURS.expected_per_s,
    is_ours=True,
    is_before=True,
)
#: All built-in consumers in one process, as users run them.
OURS_ALL = StoringWorker(
    name="ours, all consumers",
    command=lambda _: tiw("work"),
    settings=our_settings,
    expected_per_s=5_000,
    is_ours=True,
)

WORKERS = (FASTSTREAM, AIO_PIKA, AMQPLIB, OURS, OURS_BEFORE)
