"""What archives is run: it fetches one file, archives large ones, or claims many."""

import asyncio
import os
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.contenders.programs import bench_module, environment, tiw
from bench.errors import BenchError, VoidRoundError
from bench.machine.arena import Arena, free_port
from bench.machine.running import Running
from bench.options import Options
from bench.results import PER_S
from bench.rounds import Values
from broker import EmbeddedTransport
from schemas import decode
from simulator import ClassKind, make_class, render
from store import ArchivePlan, KeptEvent, PlannedFile, Store, apply_events, claim_files, migrate, plan_archive
from tests.servers.rclone import ACCESS_KEY_ID, PROGRAM, SECRET_ACCESS_KEY, RcloneS3

MB_PER_S = "mb_per_s"
#: Resident, at its highest.
PEAK_MB = "peak_mb"

_APP = 1400000001
_MB = 1_000_000
_FILE_MB = 1_000
_LARGE_MB = 2_000
_LARGE = 4
_CLAIMED = 10_000
_PER_RECORDING = 50
_PER_CLAIM = 100
_WITHIN_S = 600.0


@contextmanager
def _served(folder: Path, name: str, size_mb: int) -> Iterator[str]:
    """Serve a file that takes no room on disk; yield its address."""
    served = folder / "served"
    served.mkdir()
    with (served / name).open("wb") as file:
        file.truncate(size_mb * _MB)
    address = f"127.0.0.1:{free_port()}"
    command = [str(PROGRAM), "serve", "http", "--config", os.devnull, "--addr", address, str(served)]
    with Running(command, environ=environment({}), folder=folder) as server:
        server.wait_until(lambda: "Server started" in server.output(), what="the server of files", within_s=30)
        yield f"http://{address}/{name}"


def fetch(how: Callable[[str, Path], float], arena: Arena, options: Options) -> Values:
    """Fetch a file of 1 GB over loopback to disk; `how` returns how many seconds that took."""
    del options
    with arena.run_folder() as folder, _served(folder, "1.mp4", _FILE_MB) as url:
        part = folder / "1.part"
        took_s = how(url, part)
        if part.stat().st_size != _FILE_MB * _MB:
            raise VoidRoundError(f"{part.stat().st_size} bytes came")
    return {MB_PER_S: _FILE_MB / took_s}


def ours(url: str, part: Path) -> float:
    """Fetch as the archive does, digested and synced."""
    return float(_run([*bench_module("contenders.fetching"), url, str(part)], {}))


def curl(url: str, part: Path, *, after: str) -> float:
    """Fetch with `curl | tee | sha256sum`, and what comes after it."""
    quoted = shlex.quote(str(part))
    line = f"curl -sf {shlex.quote(url)} | tee {quoted} | sha256sum {after.format(part=quoted)}"
    began_s = time.perf_counter()
    _run(["bash", "-o", "pipefail", "-c", line], {})
    return time.perf_counter() - began_s


def _run(command: list[str], settings: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        env=environment(dict(settings)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN_S,
    )
    if done.returncode != 0:
        raise BenchError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout


def folder_target(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Archive into a folder on the same disk."""
    del stack
    return {"TIW_ARCHIVE": str(folder / "kept")}


def bucket_target(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Archive into a bucket of `rclone serve s3`."""
    (folder / "buckets" / "classes").mkdir(parents=True)
    server = stack.enter_context(RcloneS3(folder / "buckets"))
    keys = {"TIW_ARCHIVE_S3_KEY_ID": ACCESS_KEY_ID, "TIW_ARCHIVE_S3_SECRET": SECRET_ACCESS_KEY}
    return {
        "TIW_ARCHIVE": "s3://classes",
        "TIW_ARCHIVE_S3_ENDPOINT": server.url,
        "TIW_ARCHIVE_S3_STYLE": "path",
        **keys,
    }


def archive_large(target: Callable[[Path, ExitStack], dict[str, str]], arena: Arena, options: Options) -> Values:
    """Archive the files of one recording with `tiw archive fetch`; the kernel says what it took at most."""
    del options
    with arena.run_folder() as folder, _served(folder, "1.mp4", _LARGE_MB) as url, ExitStack() as stack:
        database_url = f"sqlite+aiosqlite:///{folder}/tiw.db"
        task_id = asyncio.run(_finish(database_url, url, folder / "data"))
        settings = {
            **target(folder, stack),
            "TIW_DATABASE_URL": database_url,
            "TIW_DATA_DIR": str(folder / "data"),
            "TIW_ARCHIVE_HOSTS": url.split("/")[2],
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
        }
        command = [*tiw("archive", "fetch", task_id, "--json")]
        began_s = time.perf_counter()
        with (folder / "fetch.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment(settings), stdout=log, stderr=log)
            peak_mb = 0.0
            while process.poll() is None:
                # Not what wait4 says: that is no less than what this process, which began it, has used.
                peak_mb = max(peak_mb, _peak_mb(process.pid))
                time.sleep(0.1)
        if process.returncode != 0:
            raise VoidRoundError((folder / "fetch.log").read_text()[-500:])
        return {MB_PER_S: _LARGE * _LARGE_MB / (time.perf_counter() - began_s), PEAK_MB: peak_mb}


def _peak_mb(pid: int) -> float:
    """Return the resident memory of a process at its highest; 0 if it has just ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) * 1024 / _MB for line in status.splitlines() if line.startswith("VmHWM:"))


async def _finish(database_url: str, url: str, data_dir: Path) -> str:
    """Let a recording of these files be known, and a transport be there; return its TaskId."""
    cls = make_class(ClassKind.NORMAL, _rng(), sdk_app_id=_APP, room_id=1, started_at=int(time.time()) - 7200)
    real = cls.callbacks[-1]
    videos = [
        {"VideoId": str(number), "VideoUrl": url, "VideoSize": _LARGE_MB * _MB, "VideoType": 0, "VideoFormat": "mp4"}
        for number in range(_LARGE)
    ]
    data = msgspec.json.decode(real.event_data) | {"VideoInfos": videos}
    body = render(msgspec.structs.replace(real, event_data=msgspec.json.encode(data).decode()))
    received_at_us = time.time_ns() // 1000
    decoded = decode(body, received_at_us=received_at_us)
    kept = KeptEvent(event=decoded.event, event_id=decoded.event_id, received_at_us=received_at_us, body=body)
    async with EmbeddedTransport(data_dir), Store(database_url) as store:
        await migrate(store)
        await apply_events(store, [kept])
    return cls.task_id


def claim(arena: Arena, options: Options) -> Values:
    """Claim 10,000 due files, 100 at a time, on PostgreSQL."""
    del options
    with arena.database() as url:
        return {PER_S: asyncio.run(_claim_all(url))}


async def _claim_all(url: str) -> float:
    now_us = time.time_ns() // 1000
    deadlines_us = [now_us + number for number in range(_CLAIMED)]
    _rng().shuffle(deadlines_us)
    plans = [
        ArchivePlan(
            sdk_app_id=_APP,
            task_id=f"t{first}",
            folder=f"1/t{first}",
            active_at_us=1,
            files=tuple(
                PlannedFile(
                    file_key=str(number),
                    number=number + 1,
                    name=f"{number}.mp4",
                    url="http://127.0.0.1/",
                    address_from="vendor",
                    deleted_at_us=deadlines_us[first + number],
                )
                for number in range(_PER_RECORDING)
            ),
        )
        for first in range(0, _CLAIMED, _PER_RECORDING)
    ]
    async with Store(url) as store:
        await migrate(store)
        await plan_archive(store, plans)
        found: list[int] = []
        began_s = time.perf_counter()
        while claimed := await claim_files(
            store,
            lease_holder="bench",
            lease_s=600.0,
            limit=_PER_CLAIM,
            staged_on="here",
            can_fetch=True,
            can_place=True,
        ):
            found += [one.deadline_at_us for one in claimed]
        took_s = time.perf_counter() - began_s
    if found != sorted(deadlines_us):
        raise VoidRoundError(f"{len(found)} files were claimed, or not in the order of their deadlines")
    return len(found) / took_s


def _rng() -> random.Random:
    return random.Random(1)  # noqa: S311 - the same each time is the point
