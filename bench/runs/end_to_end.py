"""One run at one rate: an ingest and a worker process, and how long after each 200 its row is visible."""

import asyncio
import contextlib

import uvloop
from msgspec import Struct

from bench.contenders.migrating import migrate
from bench.contenders.programs import environment, tiw
from bench.contenders.storing import Assignment, our_settings
from bench.errors import VoidRoundError
from bench.load.payloads import Payload, signed_callbacks
from bench.load.queues import count_ready
from bench.load.sender import Sender
from bench.load.visibility import Visibility
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.rounds import Values
from bench.runs.accepting import PATH, READY_WITHIN_S, accepts
from bench.statistics import percentile

#: The row of the last callback.
_VISIBLE_WITHIN_S = 30.0


class Latencies(Struct, frozen=True, kw_only=True):
    """From the 200 to the visible row, in milliseconds; 0 where the row was first."""

    values_ms: list[float]

    def values(self) -> Values:
        """Return the percentiles."""
        return {
            "p50_ms": percentile(self.values_ms, 50),
            "p99_ms": percentile(self.values_ms, 99),
            "p99.9_ms": percentile(self.values_ms, 99.9),
        }


def send_steadily(rate: int, arena: Arena, options: Options) -> Values:
    """Send `rate` callbacks a second to one ingest process, with all built-in consumers in another.

    p50_ms, p99_ms, p99.9_ms. Raises `VoidRoundError` if a callback was refused or its row does not come.
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
            settings = {**our_settings(assignment), "TIW_HTTP": address, "TIW_ADMIN": "127.0.0.1:0"}
            running.append(stack.enter_context(Running(tiw(*arguments), environ=environment(settings), folder=folder)))
        url = f"http://{address}{PATH}"
        running[1].wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
        # The one that was accepted just now is taken as soon as the worker is there.
        running[0].wait_until(
            lambda: count_ready(amqp_url, "tiw.started") == 0, what="a worker at its queue", within_s=READY_WITHIN_S
        )
        latencies = uvloop.run(_send(url, database_url, payloads, rate=rate, leave_out=round(len(payloads) / 11)))
        for one in running:
            one.check()
    return latencies.values()


async def _send(url: str, database_url: str, payloads: list[Payload], *, rate: int, leave_out: int) -> Latencies:
    async with Visibility(database_url) as visibility, Sender(url) as sender:
        async with asyncio.timeout(len(payloads) / rate + _VISIBLE_WITHIN_S):
            sent = await sender.send_all(payloads, per_s=rate, on_due=visibility.expect)
        if refused := [one.status for one in sent if one.status != 200]:  # noqa: PLR2004 - nothing else is success
            raise VoidRoundError(f"{len(refused)} callbacks were answered {sorted(set(refused))}")
        if not await visibility.all_seen(within_s=_VISIBLE_WITHIN_S):
            raise VoidRoundError("callbacks were answered 200 and their rows are not visible")
        seen_at_s = visibility.seen_at_s
        counted = sent[leave_out:]
        # A row can be there before its 200 has been read.
        return Latencies(values_ms=[max(0.0, seen_at_s[one.event_id] - one.answered_at_s) * 1e3 for one in counted])
