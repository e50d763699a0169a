import asyncio
from random import Random

from sqlalchemy import delete

from store import KeptEvent, Store, apply_events, count_events, find_recordings, fold, migrate
from store.tables import events, recordings
from tests.servers.postgres import PostgresServer
from tests.store.classes import random_event
from tests.store.process import all_deliveries, groups_of
from tests.store.processes import run_at_once

CONNECTIONS = 8
ROUNDS = 2


async def assert_all_applied(store: Store) -> None:
    everything = all_deliveries()
    for task_id, deliveries in everything.items():
        assert await find_recordings(store, task_id) == [fold(deliveries)]
    assert await count_events(store) == len({one.event_id for some in everything.values() for one in some})


async def test_eight_connections_lose_no_update_and_do_not_deadlock(
    postgres: PostgresServer, postgres_url: str
) -> None:
    log_before = len(postgres.log())
    async with Store(postgres_url) as store:
        await migrate(store)

        async def apply_part(seed: int, starting: asyncio.Barrier) -> None:
            await starting.wait()
            for group in groups_of(seed, of=CONNECTIONS):
                await apply_events(store, group)

        for _ in range(ROUNDS):
            starting = asyncio.Barrier(CONNECTIONS)
            async with asyncio.TaskGroup() as tasks:
                for seed in range(CONNECTIONS):
                    tasks.create_task(apply_part(seed, starting))
            await assert_all_applied(store)
            async with store.writing() as connection:
                await connection.execute(delete(events))
                await connection.execute(delete(recordings))
    assert "deadlock" not in postgres.log()[log_before:]


async def test_who_applies_at_the_same_moment_sees_what_the_others_apply(store: Store) -> None:
    # Every event comes once, so that nothing that is applied later mends what was overwritten.
    random = Random(1)
    applied: dict[str, list[KeptEvent]] = {f"task-{number}": [] for number in range(10)}
    for _ in range(5):
        groups: list[list[KeptEvent]] = [[] for _ in range(CONNECTIONS)]
        for task_id, kept in applied.items():
            new = [random_event(random, task_id=task_id) for _ in groups]
            kept.extend(new)
            for group, one in zip(groups, new, strict=True):
                group.append(one)
        await asyncio.gather(*(apply_events(store, group) for group in groups))
        for task_id, kept in applied.items():
            assert await find_recordings(store, task_id) == [fold(kept)]


async def test_four_processes_apply_at_once(store: Store) -> None:
    await run_at_once("apply", store.url, 4)
    await assert_all_applied(store)
