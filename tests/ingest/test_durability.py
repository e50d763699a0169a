"""200 means kept: by the broker, or else by the spool, and in time."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import NotPublishedError
from ingest import IngestConfig, IngestServer, KeyRing, Spool
from ingest.config import Budget
from ingest.spool import waiting_callbacks
from tests.ingest.callback_bodies import KEYS, callback
from tests.ingest.raw_http import connected, request
from tests.ingest.recording_transport import RecordingTransport
from tests.ingest.waiting import until


@pytest.fixture
async def server(spool: Spool, transport: RecordingTransport, budget: Budget) -> AsyncIterator[IngestServer]:
    config = IngestConfig(port=0, max_unconfirmed=3, budget=budget)
    async with IngestServer(config, transport, KeyRing(KEYS), spool=spool) as server:
        yield server
        transport.gate.set()


@pytest.fixture
def budget() -> Budget:
    return Budget()


short_of_time = pytest.mark.parametrize("budget", [Budget(confirm_s=0.1, spool_s=0.2)], ids=["short"])


async def post(server: IngestServer, task_id: str = "task") -> int:
    async with connected(server.port) as connection:
        await connection.send(request(callback(EventData={"TaskId": task_id})))
        return int((await connection.answer()).status)


def spooled(folder: Path) -> list[bytes]:
    return [one.record.message.body for one in waiting_callbacks(folder)]


async def test_what_the_broker_confirms_is_not_spooled(
    server: IngestServer, transport: RecordingTransport, folder: Path
) -> None:
    assert await post(server) == 200
    assert (len(transport.published), spooled(folder)) == (1, [])


async def test_what_the_broker_refuses_is_spooled_and_answered_200(
    server: IngestServer, transport: RecordingTransport, folder: Path
) -> None:
    transport.error = NotPublishedError("refused")
    assert await post(server) == 200
    (body,) = spooled(folder)
    assert b'"task"' in body
    assert b"Sign" not in body
    assert b"ExpireTime" not in body


@short_of_time
async def test_what_the_broker_does_not_confirm_in_time_is_spooled_and_answered_200(
    server: IngestServer, transport: RecordingTransport, folder: Path
) -> None:
    transport.gate.clear()
    assert await post(server) == 200
    assert len(spooled(folder)) == 1


async def test_while_the_broker_is_away_nobody_waits_for_it(
    server: IngestServer, spool: Spool, transport: RecordingTransport
) -> None:
    transport.gate.clear()
    transport.is_ready = False
    await until(lambda: server._durability.is_failing)
    assert [await post(server, f"{number}") for number in range(5)] == [200] * 5
    assert transport.waiting == 0
    assert spool.depth.callbacks == 5


async def test_more_than_may_wait_for_the_broker_go_straight_to_the_spool(
    server: IngestServer, spool: Spool, transport: RecordingTransport
) -> None:
    transport.gate.clear()
    waiting = [asyncio.create_task(post(server, f"{number}")) for number in range(3)]
    await until(lambda: server._durability._live == 3)
    assert await post(server, "fourth") == 200
    assert spool.depth.callbacks == 1
    transport.gate.set()
    assert await asyncio.gather(*waiting) == [200] * 3
    assert server._durability._live == 0


async def test_if_broker_and_spool_both_fail_it_is_503(
    server: IngestServer, transport: RecordingTransport, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.error = NotPublishedError("refused")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert [await post(server) for _ in range(3)] == [503] * 3
    assert server.ready().not_ready == ("neither the broker nor the spool takes anything",)
    monkeypatch.undo()
    await until(lambda: not server.ready().not_ready)
    assert await post(server) == 200


@short_of_time
async def test_a_disk_that_hangs_is_503_in_time(
    spool: Spool, transport: RecordingTransport, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.error = NotPublishedError("refused")
    fdatasync = os.fdatasync
    hangs = True

    def hang(descriptor: int) -> None:
        while hangs:
            time.sleep(0.005)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hang)
    config = IngestConfig(port=0, budget=budget)
    async with IngestServer(config, transport, KeyRing(KEYS), spool=spool) as server:
        assert await post(server) == 503
        hangs = False
        await until(lambda: spool.is_ready)
        assert await post(server) == 200


async def test_it_is_ready_while_the_broker_or_the_spool_is(
    server: IngestServer, transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport.is_ready = False
    assert server.ready().not_ready == ()
    monkeypatch.setattr(Spool, "is_ready", property(lambda _: False))
    assert server.ready().not_ready == ("neither the broker nor the spool takes anything",)
    transport.is_ready = True
    assert server.ready().not_ready == ()


async def test_a_callback_that_came_late_gets_what_is_left_of_its_time(
    spool: Spool, transport: RecordingTransport
) -> None:
    transport.error = NotPublishedError("refused")
    config = IngestConfig(port=0, budget=Budget(total_s=0.0))
    async with IngestServer(config, transport, KeyRing(KEYS), spool=spool) as server:
        assert await post(server) == 503
