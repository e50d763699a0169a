"""Keeping refused callbacks while requests flow: what is kept, and that neither a flood nor a disk delays anybody."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import ingest.rejected
from ingest import Rejected, RejectedFileError, read_rejected
from ingest.refusals import Refusal
from ingest.rejected import MAX_WAITING, MAX_WAITING_BYTES, RejectedWriter, keep_rejected
from telemetry import render_metrics
from tests.ingest.callback_bodies import SDK_APP_ID, callback, sign_of
from tests.ingest.conftest import Serve
from tests.ingest.raw_http import post
from tests.ingest.waiting import until

NEVER_US = 10**18


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "WRITE_INTERVAL_S", 0.01)
    # A machine that is busy may take its time: what is looked at is what was written in the end.
    monkeypatch.setattr(ingest.rejected, "CLOSE_TIMEOUT_S", 30.0)


def kept(folder: Path) -> list[Rejected]:
    return [one.rejected for one in read_rejected(folder, now_us=0)]


def counted(series: str) -> float:
    return float(render_metrics().decode().partition(f"\n{series} ")[2].partition("\n")[0])


async def test_what_another_key_could_let_in_is_kept_and_nothing_else(serve: Serve, tmp_path: Path) -> None:
    server = await serve(rejected_folder=tmp_path)
    mendable = {
        "wrong_sign": callback(key="another key"),
        "unknown_app": callback(SdkAppId=5),
        "missing_sign": callback().replace(b'"Sign"', b'"Mark"'),
    }
    hopeless = [
        callback(expire_time=1588040109),
        callback(Sign="A" * 32),
        callback(ExpireTime="1588040109"),
        callback(SdkAppId="5"),
        callback()[:-1],
        callback().replace(b'"Sign"', b'"Sign": "x", "Sign"'),
        callback(Padding="x" * 1024 * 1024),
    ]
    assert (await post(server.port, callback())).status == 200
    for body in (*hopeless, *mendable.values()):
        assert (await post(server.port, body)).status in {400, 401, 413}
    await server.drain()
    assert {one.reason: one.body for one in kept(tmp_path)} == mendable
    assert {one.sdk_app_id for one in kept(tmp_path)} == {SDK_APP_ID, 5}


async def test_the_six_tries_of_one_callback_are_kept_once(serve: Serve, tmp_path: Path) -> None:
    server = await serve(rejected_folder=tmp_path)
    body = callback(key="another key")
    for _ in range(3):
        await post(server.port, body)
    await until(lambda: len(kept(tmp_path)) == 1)
    for _ in range(3):
        await post(server.port, body)
    await server.drain()
    (one,) = kept(tmp_path)
    assert one.tries == 6


async def test_what_was_kept_shows_in_no_log_and_no_metric(serve: Serve, tmp_path: Path) -> None:
    body = callback(key="another key")
    with structlog.testing.capture_logs() as logs:
        server = await serve(rejected_folder=tmp_path)
        await post(server.port, body)
        await server.drain()
    assert sign_of(body).encode() in kept(tmp_path)[0].body
    assert sign_of(body) not in repr(logs) + render_metrics().decode()


async def test_a_disk_that_refuses_costs_the_record_and_one_line(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(folder: Path, rejected: list[Rejected], *, now_us: int) -> None:
        del folder, now_us
        tried.append(len(rejected))
        raise RejectedFileError("the file cannot be used: look at its disk's free space")

    monkeypatch.setattr(ingest.rejected, "keep_rejected", full)
    with structlog.testing.capture_logs() as logs:
        server = await serve(rejected_folder=tmp_path)
        before = counted('tiw_rejected_not_kept_total{reason="disk"}')
        for number in range(3):
            assert (await post(server.port, callback(key="another key", Number=number))).status == 401
            await until(lambda number=number: sum(tried) > number)  # type: ignore[misc]  # mypy sees no lambda here
        assert (await post(server.port, callback())).status == 200
        await server.drain()
    assert counted('tiw_rejected_not_kept_total{reason="disk"}') == before + 3
    assert len([entry for entry in logs if entry["event"] == "rejected_not_kept"]) == 1


class HangingDisk:
    """A disk that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.writes = 0
        self.gate = threading.Event()

    def keep(self, folder: Path, rejected: list[Rejected], *, now_us: int) -> None:
        """Hang, then write."""
        self.writes += 1
        self.gate.wait(30)
        keep_rejected(folder, rejected, now_us=now_us)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    disk = HangingDisk()
    monkeypatch.setattr(ingest.rejected, "keep_rejected", disk.keep)
    yield disk
    disk.gate.set()


async def test_a_disk_that_hangs_delays_no_answer_and_no_end(
    serve: Serve, tmp_path: Path, disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest.rejected, "CLOSE_TIMEOUT_S", 0.1)
    server = await serve(rejected_folder=tmp_path)
    await until(lambda: disk.writes == 1)
    for number in range(100):
        body = callback(key="another key", Number=number)
        assert (await post(server.port, body)).status == 401
    assert (await post(server.port, callback())).status == 200
    assert disk.writes == 1
    async with asyncio.timeout(10):
        await server.drain()


async def test_once_a_disk_goes_on_what_waited_is_written(serve: Serve, tmp_path: Path, disk: HangingDisk) -> None:
    server = await serve(rejected_folder=tmp_path)
    await until(lambda: disk.writes == 1)
    await post(server.port, callback(key="another key"))
    disk.gate.set()
    await until(lambda: len(kept(tmp_path)) == 1)


async def test_a_flood_is_bounded_and_leaves_room_for_applications_that_there_are(
    tmp_path: Path, disk: HangingDisk
) -> None:
    before = counted('tiw_rejected_not_kept_total{reason="too_many"}')
    async with RejectedWriter(tmp_path) as writer:
        await until(lambda: disk.writes == 1)
        for number in range(10_000):
            note(writer, b"rubbish %d" % number, Refusal.UNKNOWN_APP, app=number)
        note(writer, b"real", Refusal.WRONG_SIGN, app=SDK_APP_ID)
        disk.gate.set()
        await until(lambda: len(kept(tmp_path)) == MAX_WAITING + 1)
    assert b"real" in {one.body for one in kept(tmp_path)}
    assert counted('tiw_rejected_not_kept_total{reason="too_many"}') == before + 10_000 - MAX_WAITING


def note(writer: RejectedWriter, body: bytes, refusal: Refusal, *, app: int) -> None:
    writer.note(body, refusal, sdk_app_id=app, received_at_us=NEVER_US)


def rejected(body: bytes, **members: Any) -> Rejected:
    return Rejected(received_at_us=1, reason="wrong_sign", sdk_app_id=1, body=body, **members)


async def test_what_waits_is_bounded_in_bytes(tmp_path: Path, disk: HangingDisk) -> None:
    async with RejectedWriter(tmp_path) as writer:
        await until(lambda: disk.writes == 1)
        for number in range(10):
            note(writer, b"%d" % number + b" " * (MAX_WAITING_BYTES // 3), Refusal.WRONG_SIGN, app=SDK_APP_ID)
            note(writer, b"%d" % number, Refusal.WRONG_SIGN, app=SDK_APP_ID)
        disk.gate.set()
        await until(lambda: len(kept(tmp_path)) > 0)
    bodies = [one.body for one in kept(tmp_path)]
    assert sum(map(len, bodies)) <= MAX_WAITING_BYTES
    assert {b"%d" % number for number in range(10)} <= set(bodies)


async def test_what_is_too_old_goes_although_nothing_new_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.rejected, "SWEEP_INTERVAL_S", 0.01)
    async with RejectedWriter(tmp_path):
        keep_rejected(tmp_path, [rejected(b"old")], now_us=2)
        await until(lambda: kept(tmp_path) == [])


async def test_two_processes_share_one_file(serve: Serve, tmp_path: Path) -> None:
    servers = [await serve(rejected_folder=tmp_path) for _ in range(2)]
    for number in range(10):
        shared = callback(key="another key", Number=number)
        for server in servers:
            await post(server.port, shared)
            await post(server.port, callback(key="another key", Number=number, Port=server.port))
    for server in servers:
        await server.drain()
    assert sorted(one.tries for one in kept(tmp_path)) == [1] * 20 + [2] * 10


async def test_a_server_without_a_folder_keeps_nothing(serve: Serve, tmp_path: Path) -> None:
    server = await serve()
    assert (await post(server.port, callback(key="another key"))).status == 401
    assert kept(tmp_path) == []
