"""The client of all that is accepting: wrk, one thread, every request another signed callback."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from bench.errors import BenchError, VoidRoundError
from bench.load.payloads import Payload

#: As long as the vendor waits for an answer: https://www.tencentcloud.com/document/product/1176/55569
TIMEOUT_S = 10

_SCRIPT = Path(__file__).with_name("wrk_bodies.lua")


class Load(Struct, frozen=True, kw_only=True):
    """What wrk did: all `requests` were answered 2xx."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float

    @property
    def requests_per_s(self) -> float:
        """The throughput."""
        return self.requests / self.duration_s


def write_bodies(path: Path, payloads: Iterable[Payload]) -> None:
    """Write the bodies for wrk, one to a line: no body holds a line feed."""
    with path.open("wb") as file:
        file.writelines(payload.body + b"\n" for payload in payloads)


def run_wrk(url: str, bodies: Path, *, seconds: float, connections: int, begin_at: int = 0) -> Load:
    """Load `url` for `seconds`, rounded up to whole ones, over `connections` connections.

    `begin_at` is the body to begin with. Raises `VoidRoundError` if a request was refused or a connection broke.
    """
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is not installed: run ./dev bench as root on Debian or Ubuntu, or install it")
    duration_s = max(1, round(seconds))
    command = [
        program,
        "-t1",
        f"-c{connections}",
        f"-d{duration_s}s",
        f"--timeout={TIMEOUT_S}s",
        "-s",
        str(_SCRIPT),
        url,
    ]
    command += ["--", str(bodies), str(begin_at)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=duration_s + 60, check=False
    )
    if done.returncode != 0:
        raise VoidRoundError(f"wrk ended with {done.returncode}: {done.stderr.strip()}")
    return read_summary(done.stdout)


def read_summary(output: str) -> Load:
    """Return what the last line of wrk's output says. Raises `VoidRoundError` if not every request was answered 2xx."""
    summary = json.loads(output.splitlines()[-1])
    if summary["refused"] or summary["broken"]:
        raise VoidRoundError(f"{summary['refused']} requests were refused, {summary['broken']} connections broke")
    if not summary["requests"]:
        raise VoidRoundError("nothing was answered")
    return Load(
        requests=summary["requests"],
        duration_s=summary["duration_us"] / 1e6,
        p50_ms=summary["p50_us"] / 1e3,
        p99_ms=summary["p99_us"] / 1e3,
    )
