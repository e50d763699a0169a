"""Many waits, one timer: each is bounded, none is touched that is not late."""

import asyncio

import pytest

import ingest.durability
from ingest.durability import Deadlines
from tests.ingest.waiting import until


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_is_in_time_returns_what_it_returns() -> None:
    async def soon() -> int:
        await asyncio.sleep(0)
        return 7

    assert await Deadlines(10).bound(soon()) == 7


async def test_what_takes_too_long_is_cancelled_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.durability, "TICK_S", 0.01)
    deadlines = Deadlines(0.3)
    gate = asyncio.Event()
    late = [asyncio.create_task(deadlines.bound(forever())) for _ in range(3)]
    await asyncio.sleep(0.15)
    in_time = asyncio.create_task(deadlines.bound(gate.wait()))
    assert all(isinstance(one, TimeoutError) for one in await asyncio.gather(*late, return_exceptions=True))
    assert not in_time.done()
    gate.set()
    assert await in_time is True


async def test_who_is_cancelled_by_another_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.durability, "TICK_S", 0.01)
    task = asyncio.create_task(Deadlines(10).bound(forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_who_is_late_and_cancelled_as_well_is_cancelled() -> None:
    deadlines = Deadlines(0)
    task = asyncio.create_task(deadlines.bound(forever()))
    await asyncio.sleep(0)
    deadlines._tick()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_goes_on_after_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.durability, "TICK_S", 0.01)

    async def twice() -> str:
        deadlines = Deadlines(0.02)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await deadlines.bound(forever())
        await asyncio.sleep(0)
        return "done"

    assert await asyncio.create_task(twice()) == "done"


async def test_nothing_ticks_while_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.durability, "TICK_S", 0.01)
    deadlines = Deadlines(10)
    await deadlines.bound(asyncio.sleep(0.03))
    await until(lambda: deadlines._timer is None)
    assert not deadlines._waiting
