"""How many deliveries a worker takes at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import QueueState
from schemas import OnlineRecordStarted
from tests.workers.house import House, eventually, started
from workers import Consumer, Context, consumer
from workers.runner import MAX_BYTES, Prefetch

KIB = 1024
MIB = 1024 * KIB


def noting(concurrency: int, batch: int | None) -> Consumer:
    return Consumer(
        name="noting",
        function=lambda _: None,
        event_types=(OnlineRecordStarted,),
        concurrency=concurrency,
        batch=batch,
    )


@pytest.mark.parametrize(
    ("concurrency", "batch", "prefetch"),
    [(10, None, 20), (1, None, 2), (1000, None, 2000), (2, 100, 400), (10, 500, 2000), (1, 10_000, 20_000)],
)
def test_it_is_enough_for_all_calls_and_as_many_waiting_and_fits_into_16_bits(
    concurrency: int, batch: int | None, prefetch: int
) -> None:
    sizing = Prefetch(noting(concurrency, batch))
    sizing.note(KIB)

    assert sizing.count == prefetch < 2**16


def test_large_bodies_are_taken_in_smaller_numbers_and_later_small_ones_in_large_ones_again() -> None:
    sizing = Prefetch(noting(2, 500))
    sizing.note(KIB)
    assert sizing.count == 2000
    assert sizing.note(MIB)
    assert sizing.count == 64
    assert sizing.note(15 * MIB)
    assert sizing.count == 4

    assert sum(sizing.note(KIB) for _ in range(10_000)) < 10
    assert sizing.count == 2000


@given(sizes=st.lists(st.integers(0, 15 * MIB), min_size=1), concurrency=st.integers(1, 100), batch=st.integers(1, 500))
def test_what_is_held_is_bounded_whatever_comes(sizes: list[int], concurrency: int, batch: int) -> None:
    sizing = Prefetch(noting(concurrency, batch))
    for size in sizes:
        before = sizing.count
        changed = sizing.note(size)
        assert changed or sizing.count == before
        assert sizing.count <= 2 * concurrency or sizing.count * size <= MAX_BYTES
        assert 1 <= sizing.count <= 2 * concurrency * batch


async def test_a_worker_takes_fewer_of_large_ones(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.runner.MAX_BYTES", 64 * KIB)
    entered = asyncio.Event()
    go_on = asyncio.Event()

    @consumer(batch=100, concurrency=1)
    async def archive(batch: list[tuple[OnlineRecordStarted, Context]]) -> None:
        entered.set()
        await go_on.wait()

    async def has_taken(count: int) -> bool:
        state: QueueState = await house.queue("archive")
        return state.unacked == count

    async with house.transport([archive]) as transport:
        for number in range(70):
            await transport.send("archive", started(f"task-{number}", RecordUserId="x" * 700))
    async with house.working(archive):
        await entered.wait()
        await eventually(lambda: has_taken(64))
        go_on.set()
        await eventually(lambda: has_taken(0))
