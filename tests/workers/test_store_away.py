"""While the store is away, consumers wait for it: no attempt counts and nothing is a dead letter."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import update

from schemas import OnlineRecordStarted
from store import Store, count_events, list_dead_letters, migrate
from store.migrating import LEVEL
from store.tables import schema_level
from tests.servers.postgres import PostgresServer
from tests.workers.house import House, eventually, started
from workers import BUILT_IN, Context, consumer


@pytest.fixture
async def house(tmp_path: Path, postgres_url: str) -> AsyncIterator[House]:
    async with Store(postgres_url) as store:
        await migrate(store)
        yield House(store=store, folder=tmp_path)


async def test_events_wait_for_a_store_that_is_away_and_lose_no_attempt(house: House, postgres: PostgresServer) -> None:
    attempts: list[int] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)

    with structlog.testing.capture_logs() as logs:
        async with house.working(*BUILT_IN, archive) as transport:
            await transport.publish(started("before"))
            await eventually(lambda: len(attempts) == 1)
            await asyncio.to_thread(postgres.stop)
            try:
                for number in range(20):
                    await transport.publish(started(f"task-{number}"))
                await eventually(lambda: any(entry["event"] == "consumer_paused" for entry in logs))
            finally:
                await asyncio.to_thread(postgres.start)
            await eventually(lambda: len(attempts) == 21, deadline_s=60)
            await eventually(lambda: _has_events(house, 21), deadline_s=60)

    assert attempts == [1] * 21
    assert await list_dead_letters(house.store) == []


async def test_a_completion_that_cannot_be_remembered_yet_is_not_forgotten(
    house: House, postgres: PostgresServer
) -> None:
    handled: list[str] = []
    entered, may_end = asyncio.Event(), asyncio.Event()

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        entered.set()
        await may_end.wait()
        handled.append(event.task_id)

    message = started()
    async with house.working(archive) as transport:
        await transport.publish(message)
        await entered.wait()
        await asyncio.to_thread(postgres.stop)
        try:
            may_end.set()
            await eventually(lambda: len(handled) == 1)
        finally:
            await asyncio.to_thread(postgres.start)
        await transport.publish(message)
        await transport.publish(started("another"))
        await eventually(lambda: handled == ["task", "another"], deadline_s=60)

    assert handled == ["task", "another"]


async def test_a_version_that_is_too_old_for_a_migration_waits_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.store_watch._LOOK_EVERY_S", 0.05)
    attempts: list[int] = []

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)

    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        await migrate(store)
        house = House(store=store, folder=tmp_path)
        with structlog.testing.capture_logs() as logs:
            async with house.working(*BUILT_IN, archive) as transport:
                await _set_usable_since(store, LEVEL + 1)
                await eventually(lambda: any(entry["event"] == "schema_mismatch" for entry in logs))
                await transport.publish(started())
                await eventually(lambda: sum(entry["event"] == "consumer_paused" for entry in logs) == 2)
                assert await count_events(store) == 0
                # As when the newer version is taken back.
                await _set_usable_since(store, LEVEL)
                await eventually(lambda: attempts == [1])
                await eventually(lambda: _has_events(house, 1))
        assert await list_dead_letters(store) == []


async def _set_usable_since(store: Store, level: int) -> None:
    async with store.writing() as connection:
        await connection.execute(update(schema_level).values(level=level, usable_since=level))


async def _has_events(house: House, count: int) -> bool:
    return await count_events(house.store) == count
