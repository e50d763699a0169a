"""One run of `tiw up` on a quiet day: what it costs to sit, and what a callback costs that comes alone."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import uvloop

from bench.contenders.accepting import Place, Server
from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.load.payloads import CLASS, Payload, signed_classes
from bench.load.sender import Sender, Sent
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US
from bench.rounds import Values
from bench.runs.accepting import PATH, READY_WITHIN_S, accepts

#: Seconds of sitting per second of `options.seconds`: what it does every few seconds is in it, not what it does hourly.
_SITS_FACTOR = 10

#: Before it is measured, until what starting leaves behind is done.
_SETTLES_S = 3.0

#: A callback has been through all consumers long before the next one comes.
_CALLBACKS_PER_S = 20
_CLASSES_PER_S = 15

_STORED_WITHIN_S = 30.0

#: A school: about 600 classes, each recording started, stopped and finished, and some that pause.
CALLBACKS_A_DAY = 2_000
_DAY_S = 86_400

DAY_S = "day_cpu_s"
IDLE_PERCENT = "idle_percent"


def sit(server: Server, arena: Arena, options: Options) -> Values:
    """Let `tiw up` sit, then send it callbacks one at a time, and extrapolate to a day.

    idle_percent of a processor, idle_mb; cpu_us of a callback that comes alone, above sitting, through all consumers;
    loaded_mb after them; day_cpu_s: a day's sitting and 2,000 callbacks. Raises `VoidRoundError` if an event is
    missing.
    """
    payloads = list(signed_classes(round(_CLASSES_PER_S * options.seconds)))
    with arena.run_folder() as folder:
        place = Place(port=free_port(), amqp_url="", folder=folder)
        url = f"http://127.0.0.1:{place.port}{PATH}"
        environ = environment(server.settings(place), tree=arena.tree(is_before=server.is_before))
        with Running(server.command(arena), environ=environ, folder=folder) as running:
            running.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
            uvloop.run(_send(url, payloads[: len(CLASS)]))
            time.sleep(_SETTLES_S)
            began_s, began_cpu_s = time.monotonic(), running.cpu_s
            time.sleep(_SITS_FACTOR * options.seconds)
            idle_s_per_s = (running.cpu_s - began_cpu_s) / (time.monotonic() - began_s)
            idle_mb = running.resident_mb

            began_s, began_cpu_s = time.monotonic(), running.cpu_s
            counted = payloads[len(CLASS) :]
            uvloop.run(_send(url, counted))
            expected = 1 + len(payloads)
            running.wait_until(
                lambda: _stored(folder) >= expected, what=f"{expected} events stored", within_s=_STORED_WITHIN_S
            )
            time.sleep(0.2)  # for what follows a commit
            sat_s = (time.monotonic() - began_s) * idle_s_per_s
            callback_s = (running.cpu_s - began_cpu_s - sat_s) / len(counted)
            loaded_mb = running.resident_mb
            running.check()
    return {
        CPU_US: callback_s * 1e6,
        IDLE_PERCENT: idle_s_per_s * 100,
        "idle_mb": idle_mb,
        "loaded_mb": loaded_mb,
        DAY_S: idle_s_per_s * _DAY_S + callback_s * CALLBACKS_A_DAY,
    }


async def _send(url: str, payloads: list[Payload]) -> None:
    async with Sender(url, connections=1) as sender:
        sent: list[Sent] = await sender.send_all(payloads, per_s=_CALLBACKS_PER_S, on_due=lambda _: None)
    if refused := {one.status for one in sent} - {200}:
        raise VoidRoundError(f"callbacks were answered {sorted(refused)}")


def _stored(folder: Path) -> int:
    return count_stored(folder / "data" / "store.db")


def count_stored(path: Path) -> int:
    """Return how many events a store in SQLite holds; nothing is written there."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as database:
        return int(database.execute("SELECT count(*) FROM events").fetchone()[0])
