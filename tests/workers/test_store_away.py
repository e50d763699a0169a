"""While the store is away, consumers wait for it: no attempt counts and nothing is a dead letter."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
import structlog
from sqlalchemy import update

from schemas import OnlineRecordStarted
from store import Store, check_schema, count_events, list_dead_letters, migrate
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


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """Return a list that grows each time it is asked whether the store can be used again."""
    asked: list[Store] = []

    async def check(store: Store) -> None:
        asked.append(store)
        await check_schema(store)

    monkeypatch.setattr("workers.store_watch.check_schema", check)
    return asked


@asynccontextmanager
async def read_only(postgres: PostgresServer, database: str) -> AsyncIterator[None]:
    """Let the server take no writes, as after a failover; sessions of before keep what they began with."""
    postgres.query(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    postgres.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")  # noqa: S608
    try:
        yield
    finally:
        postgres.query(f"ALTER DATABASE {database} RESET default_transaction_read_only")


@asynccontextmanager
async def out_of_connections(postgres: PostgresServer, database: str) -> AsyncIterator[None]:
    """Take every connection that the server has."""
    taken = [await asyncpg.connect(postgres.url().replace("+asyncpg", ""))]
    try:
        for _ in range(2):
            with suppress(asyncpg.TooManyConnectionsError):
                while True:
                    taken.append(await asyncpg.connect(postgres.url().replace("+asyncpg", "")))
            await taken[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
            )
        yield
    finally:
        for connection in taken:
            await connection.close()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(read_only, "read-only transaction"), (out_of_connections, "too many clients already")],
)
async def test_a_server_that_refuses_us_is_away_with_its_own_words_and_comes_back_by_itself(
    house: House,
    postgres: PostgresServer,
    trouble: Callable[[PostgresServer, str], AbstractAsyncContextManager[None]],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.store_watch._PROBE_EVERY_S", 0.1)
    with structlog.testing.capture_logs() as logs:
        async with house.working(*BUILT_IN) as transport:
            await transport.publish(started("before"))
            await eventually(lambda: _has_events(house, 1))
            async with trouble(postgres, house.store.safe_url.rpartition("/")[2]):
                asked = count_calls(monkeypatch)
                await transport.publish(started("meanwhile"))
                await eventually(lambda: any(said in str(entry.get("reason")) for entry in logs), deadline_s=60)
                await eventually(lambda: len(asked) > 2, deadline_s=60)
                # Reading alone would have found it well.
                assert not [entry for entry in logs if entry["event"] == "store_back"]
            await eventually(lambda: _has_events(house, 2), deadline_s=60)
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
