"""A process knows when its leases may be another's."""

import asyncio
import time

import pytest

from schemas import OnlineRecordStarted
from store import claim, complete
from tests.workers.house import House, eventually, started
from workers import Context, consumer
from workers.memory import Leases


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lease_holds_until_it_runs_out_from_when_it_was_asked_for() -> None:
    clock = Clock()
    leases = Leases(30.0, monotonic_s=clock)
    clock.now_s = 1_030.0
    assert leases.hold(1_005.0)
    assert leases.hold(1_000.0)
    clock.now_s = 1_036.0
    assert not leases.hold(1_005.0)
    assert leases.hold(1_007.0)


def test_a_renewal_in_time_lets_it_hold_on() -> None:
    clock = Clock()
    leases = Leases(30.0, monotonic_s=clock)
    for began_s in (1_010.0, 1_020.0, 1_030.0, 1_040.0):
        leases.renewed(began_s=began_s)
    clock.now_s = 1_060.0
    assert leases.hold(1_001.0)


def test_a_renewal_that_came_too_late_brings_nothing_back() -> None:
    clock = Clock()
    leases = Leases(30.0, monotonic_s=clock)
    clock.now_s = 1_042.0
    leases.renewed(began_s=1_042.0)
    assert not leases.hold(1_005.0)
    clock.now_s = 1_043.0
    assert leases.hold(1_042.5)


async def test_what_another_handled_while_this_process_stood_still_is_not_handled_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[str] = []
    stands_still = asyncio.Event()

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(event.task_id)

    async def claim_and_stand_still(*args: object, **kwargs: object) -> object:
        claims = await claim(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        if not stands_still.is_set():
            stands_still.set()
            # The whole process, as SIGSTOP does it; meanwhile its lease runs out, and another handles the event.
            time.sleep(0.5)  # noqa: ASYNC251 - on purpose
            await complete(house.store, consumer="archive", event_ids=list(claims), lease_holder="elsewhere/ns/1/ab")
        return claims

    monkeypatch.setattr("workers.memory.claim", claim_and_stand_still)

    async def is_settled() -> bool:
        state = await house.queue("archive")
        return stands_still.is_set() and state.ready == 0 and state.unacked == 0

    async with house.working(archive, lease_s=0.3) as transport:
        await transport.send("archive", started())
        await eventually(is_settled)
    assert handled == []
