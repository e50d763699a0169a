import asyncio

from sqlalchemy import update

from store import Store, reserve
from store.tables import rate_limits
from tests.store.process import TURNS, TURNS_EVERY_S
from tests.store.processes import run_at_once


async def pass_time(store: Store, by_s: float) -> None:
    async with store.writing() as connection:
        earlier = rate_limits.c.next_at_us - round(by_s * 1_000_000)
        await connection.execute(update(rate_limits).values(next_at_us=earlier))


async def waits(store: Store, count: int, *, burst: int = 1, at_most_wait_s: float = 1e6) -> list[float | None]:
    """Return the waits of `count` turns of a name that has one every 100 seconds, in whole turns."""
    waits = [await reserve(store, "a", every_s=100, burst=burst, at_most_wait_s=at_most_wait_s) for _ in range(count)]
    return [None if wait is None else round(wait / 100, 1) for wait in waits]


async def test_turns_are_one_after_another(store: Store) -> None:
    assert await waits(store, 4) == [0, 1, 2, 3]
    assert await reserve(store, "another", every_s=100, burst=1, at_most_wait_s=0) == 0
    await pass_time(store, 350)
    assert await waits(store, 2) == [0.5, 1.5]


async def test_a_burst_comes_at_once_and_only_after_quiet(store: Store) -> None:
    assert await waits(store, 5, burst=3) == [0, 0, 0, 1, 2]
    await pass_time(store, 400)
    assert await waits(store, 3, burst=3) == [0, 0, 1]
    await pass_time(store, 100_000)
    assert await waits(store, 4, burst=3) == [0, 0, 0, 1]


async def test_a_turn_that_is_too_far_away_is_not_taken(store: Store) -> None:
    assert await waits(store, 4, burst=2, at_most_wait_s=100) == [0, 0, 1, None]
    assert await waits(store, 2, burst=2, at_most_wait_s=0) == [None, None]
    await pass_time(store, 100)
    assert await waits(store, 2, burst=2, at_most_wait_s=100) == [1, None]


async def test_a_clock_that_is_set_back_stops_nobody_for_long(store: Store) -> None:
    assert await waits(store, 2, at_most_wait_s=100) == [0, 1]
    await pass_time(store, -86_400)
    assert await waits(store, 3, at_most_wait_s=100) == [0, 1, None]


async def test_turns_of_many_connections_at_once_are_all_different(store: Store) -> None:
    async def reserve_some() -> list[float | None]:
        async with Store(store.url) as own:
            return await waits(own, 8, burst=4)

    together = await asyncio.gather(*(reserve_some() for _ in range(4)))
    turns = sorted(wait for some in together for wait in some if wait is not None)
    assert turns == [0, 0, 0, *range(29)]


async def test_turns_of_several_processes_at_once_are_all_different(store: Store) -> None:
    await run_at_once("reserve", store.url, 3)
    after_all = await reserve(store, "turns", every_s=TURNS_EVERY_S, burst=1, at_most_wait_s=1e6)
    assert after_all is not None
    assert 3 * TURNS * TURNS_EVERY_S - 100 < after_all <= 3 * TURNS * TURNS_EVERY_S
