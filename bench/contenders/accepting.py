"""The servers that take callbacks: how each is started, and where what it kept can be counted."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from bench.contenders.programs import bench_module, go_peer, node_peer, python_peer, tiw
from bench.load.payloads import APP, KEY
from bench.load.queues import count_ready
from bench.machine.arena import Arena
from broker.embedded.database import DATABASE_NAME
from ingest import spool_files


class Place(Struct, frozen=True, kw_only=True):
    """What a server is given for one run."""

    port: int
    amqp_url: str
    folder: Path


class Server(Struct, frozen=True, kw_only=True):
    """A server that takes callbacks.

    `kept` counts what it has made durable; None where that is nothing, or is handed on at once. `is_before`: its code
    is that of the commit to compare with.
    """

    name: str
    command: Callable[[Arena], list[str]]
    settings: Callable[[Place], dict[str, str]]
    kept: Callable[[Place], int] | None
    is_before: bool = False


def _peer_settings(place: Place) -> dict[str, str]:
    return {"BENCH_PORT": str(place.port), "BENCH_AMQP_URL": place.amqp_url, "BENCH_KEY": KEY}


def _embedded_settings(place: Place) -> dict[str, str]:
    return {
        "TIW_HTTP": f"127.0.0.1:{place.port}",
        "TIW_ADMIN": "127.0.0.1:0",
        "TIW_CONSOLE": "off",
        "TIW_CALLBACK_KEYS": json.dumps({str(APP): [KEY]}),
        "TIW_DATA_DIR": str(place.folder / "data"),
    }


def _amqp_settings(place: Place) -> dict[str, str]:
    return {**_embedded_settings(place), "TIW_AMQP_URL": place.amqp_url}


def _kept_by_peer(place: Place) -> int:
    return count_ready(place.amqp_url, "bench.callbacks")


def _kept_by_ours(place: Place) -> int:
    return count_ready(place.amqp_url, "tiw.started", "tiw.finished")


def _kept_in_file(place: Place) -> int:
    with closing(sqlite3.connect(place.folder / "data" / DATABASE_NAME)) as database:
        return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])


def _spooling_settings(place: Place) -> dict[str, str]:
    # Nothing listens on port 1.
    return {**_embedded_settings(place), "TIW_AMQP_URL": "amqp://127.0.0.1:1/"}


def _kept_in_spool(place: Place) -> int:
    return sum(state.waiting for state in spool_files(place.folder / "data" / "spool"))


def _python(name: str, module: str, *, publishes: bool = True) -> Server:
    return Server(
        name=name,
        command=lambda arena: python_peer(arena, module),
        settings=_peer_settings,
        kept=_kept_by_peer if publishes else None,
    )


BARE_AIOHTTP = _python("bare aiohttp", "bare_aiohttp", publishes=False)
FASTAPI_FASTSTREAM = _python("FastAPI + FastStream", "fastapi_faststream")
FASTAPI_AIO_PIKA = _python("FastAPI + aio-pika", "fastapi_aio_pika")
GRANIAN_AIO_PIKA = _python("granian + aio-pika", "granian_aio_pika")
GO_AMQP091 = Server(
    name="Go net/http + amqp091",
    command=lambda arena: go_peer(arena, "accepting"),
    settings=_peer_settings,
    kept=_kept_by_peer,
)
FASTIFY_AMQPLIB = Server(
    name="fastify + amqplib",
    command=lambda arena: node_peer(arena, "accepting"),
    settings=_peer_settings,
    kept=_kept_by_peer,
)
OURS = Server(name="ours", command=lambda _: tiw("ingest"), settings=_amqp_settings, kept=_kept_by_ours)
OURS_2 = Server(
    name="ours, 2 processes",
    command=lambda _: tiw("ingest", "--processes", "2"),
    settings=_amqp_settings,
    kept=_kept_by_ours,
)
OURS_EMBEDDED = Server(
    name="ours, embedded",
    command=lambda _: bench_module("contenders.embedded_ingest"),
    settings=_embedded_settings,
    kept=_kept_in_file,
)
#: The broker is away for as long as it runs.
OURS_SPOOLING = Server(
    name="ours, spooling", command=lambda _: tiw("ingest"), settings=_spooling_settings, kept=_kept_in_spool
)
#: Its consumers take what it keeps at once: what is left in the file says nothing.
OURS_EMBEDDED_ALL = Server(
    name="ours, embedded, all running", command=lambda _: tiw("up"), settings=_embedded_settings, kept=None
)

OURS_BEFORE = Server(name="ours, before", command=OURS.command, settings=OURS.settings, kept=OURS.kept, is_before=True)
OURS_EMBEDDED_ALL_BEFORE = Server(
    name="ours, embedded, all running, before",
    command=OURS_EMBEDDED_ALL.command,
    settings=OURS_EMBEDDED_ALL.settings,
    kept=None,
    is_before=True,
)

SERVERS = (
    BARE_AIOHTTP,
    FASTAPI_FASTSTREAM,
    FASTAPI_AIO_PIKA,
    GRANIAN_AIO_PIKA,
    FASTIFY_AMQPLIB,
    GO_AMQP091,
    OURS,
    OURS_BEFORE,
    OURS_EMBEDDED,
    OURS_EMBEDDED_ALL,
    OURS_EMBEDDED_ALL_BEFORE,
)
#: What no target asks for.
FURTHER_SERVERS = (OURS_2,)
