"""One run of `tiw up` while people look at the console: what that costs whoever takes the callbacks."""

import asyncio
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import uvloop

from bench.contenders.accepting import OURS_EMBEDDED_ALL, Place
from bench.contenders.programs import environment
from bench.errors import VoidRoundError
from bench.load.payloads import signed_callbacks
from bench.load.sender import Sender
from bench.machine import proc
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import CPU_US
from bench.rounds import Values
from bench.runs.accepting import PATH, READY_WITHIN_S, accepts
from bench.statistics import percentile

_TOKEN = "bench-console-token-0123456789"  # noqa: S105 - of this bench alone

_PER_S = 200

#: Seconds of load per second of `options.seconds`: the page is told anew every two seconds.
_LASTS_FACTOR = 5

CONSOLE_PERCENT = "console_percent"


def watch(viewers: int | None, arena: Arena, options: Options) -> Values:
    """Send 200 callbacks a second to `tiw up` while `viewers` have the page Now open; None: the console is off.

    cpu_us of a callback, of the process that takes and handles it alone; p50_ms, p99_ms; console_percent: of a
    processor, the console's own process; told_per_s: what each viewer was told. Raises `VoidRoundError` if a callback
    was refused or a viewer was not told.
    """
    seconds = _LASTS_FACTOR * options.seconds
    payloads = list(signed_callbacks(round(_PER_S * seconds)))
    server = OURS_EMBEDDED_ALL
    with arena.run_folder() as folder:
        place = Place(port=free_port(), amqp_url="", folder=folder)
        url = f"http://127.0.0.1:{place.port}{PATH}"
        settings = server.settings(place)
        console_port = free_port()
        if viewers is not None:
            settings |= {"TIW_CONSOLE": f"127.0.0.1:{console_port}", "TIW_CONSOLE_TOKEN": _TOKEN}
        environ = environment(settings, tree=arena.tree(is_before=False))
        with Running(server.command(arena), environ=environ, folder=folder) as running:
            running.wait_until(lambda: accepts(url), what="a callback answered 200", within_s=READY_WITHIN_S)
            cookie = _log_in(console_port) if viewers else ""
            (answered_ms, told, values) = uvloop.run(
                _look_and_send(
                    running.pid, url, payloads, console_port=console_port, cookie=cookie, viewers=viewers or 0
                )
            )
            running.check()
    return {
        CPU_US: values["own_s"] / len(payloads) * 1e6,
        "p50_ms": percentile(answered_ms, 50),
        "p99_ms": percentile(answered_ms, 99),
        CONSOLE_PERCENT: values["others_s"] / values["lasted_s"] * 100,
        "told_per_s": told / values["lasted_s"],
    }


async def _look_and_send(
    pid: int, url: str, payloads: list[Any], *, console_port: int, cookie: str, viewers: int
) -> tuple[list[float], float, Mapping[str, float]]:
    told = [0] * viewers
    looking = [asyncio.create_task(_look(console_port, cookie, told, number)) for number in range(viewers)]
    try:
        async with asyncio.timeout(60):
            while not all(told):
                await asyncio.sleep(0.05)
                if failed := [task for task in looking if task.done()]:
                    raise VoidRoundError(f"{len(failed)} viewers were not told anything: {failed[0].exception()!r}")
        before = list(told)
        began_s, own_s, all_s = time.monotonic(), proc.own_cpu_s(pid), proc.cpu_s(pid)
        async with Sender(url) as sender:
            sent = await sender.send_all(payloads, per_s=_PER_S, on_due=lambda _: None)
        lasted_s = time.monotonic() - began_s
        own_s, all_s = proc.own_cpu_s(pid) - own_s, proc.cpu_s(pid) - all_s
    except (TimeoutError, OSError) as error:
        raise VoidRoundError(f"not everybody was answered: {error!r}") from error
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
    if refused := {one.status for one in sent} - {200}:
        raise VoidRoundError(f"callbacks were answered {sorted(refused)}")
    least = min((now - then for now, then in zip(told, before, strict=True)), default=0)
    if viewers and not least:
        raise VoidRoundError("a viewer was not told anything while callbacks came")
    return (
        [one.latency_ms for one in sent],
        float(least),
        {"own_s": own_s, "others_s": all_s - own_s, "lasted_s": lasted_s},
    )


async def _look(port: int, cookie: str, told: list[int], number: int) -> None:
    """Have the live page open, and count what comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        writer.write(
            f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        status = await reader.readline()
        if b" 200 " not in status:
            raise VoidRoundError(f"the live page answered {status!r}")
        while line := await reader.readline():
            told[number] += line.startswith(b"id:")
    finally:
        writer.close()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *redirect: object) -> None:  # whatever it is: not followed
        del redirect


def _log_in(port: int) -> str:
    form = urllib.parse.urlencode({"token": _TOKEN}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/login", data=form)
    try:
        with urllib.request.build_opener(_Stay()).open(request, timeout=60) as answer:
            raise VoidRoundError(f"logging in was answered {answer.status}")
    except urllib.error.HTTPError as error:
        cookie = error.headers.get("Set-Cookie")
        if cookie is None:
            raise VoidRoundError(f"logging in was answered {error.code}") from None
        return cookie.partition(";")[0]
