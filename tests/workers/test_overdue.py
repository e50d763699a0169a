"""A delivery that should have been settled long ago is seen from outside, whatever holds it up."""

import time

import pytest
import structlog

from schemas import OnlineRecordStarted
from store import list_overdue
from telemetry import render_metrics
from tests.workers.house import House, eventually, is_settled, started
from workers import Context, consumer, runner, worker


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "OVERDUE_AFTER_S", 0.3)
    monkeypatch.setattr(worker, "OVERDUE_LOOK_EVERY_S", 0.05)


def overdue(name: str) -> bytes:
    begin = b'tiw_deliveries_overdue{consumer="%s"} ' % name.encode()
    return next(line.removeprefix(begin) for line in render_metrics().splitlines() if line.startswith(begin))


async def nothing_is_overdue(house: House) -> bool:
    return await list_overdue(house.store) == []


async def test_a_delivery_that_stands_behind_a_blocked_loop_is_counted_and_logged_once(
    house: House, soon: None
) -> None:
    seen: list[bytes] = []

    @consumer(timeout_s=0.1)
    async def blocks_for_good(event: OnlineRecordStarted, ctx: Context) -> None:
        began_s = time.monotonic()
        while time.monotonic() < began_s + 2:
            time.sleep(0.1)  # noqa: ASYNC251 - that is the mistake
            seen.append(overdue("blocks_for_good"))

    with structlog.testing.capture_logs() as logs:
        async with house.working(blocks_for_good) as transport:
            assert overdue("blocks_for_good") == b"0.0"
            await transport.publish(started())
            await eventually(lambda: b"1.0" in seen)
            # The loop stood still all the time: what is told now was written meanwhile.
            (reported,) = await list_overdue(house.store)
            assert (reported.consumer, reported.unsettled_s > 0.3) == ("blocks_for_good", True)
            await eventually(lambda: overdue("blocks_for_good") == b"0.0")
            await eventually(lambda: nothing_is_overdue(house))
    told = [entry for entry in logs if entry["event"] == "delivery_overdue"]
    assert {entry["consumer"] for entry in told} == {"blocks_for_good"}
    assert len(told) <= len(seen) / 10


async def test_a_delivery_that_waits_for_its_turn_is_not_overdue(house: House, soon: None) -> None:
    handled: list[str] = []

    @consumer(timeout_s=5, concurrency=1)
    async def takes_its_time(event: OnlineRecordStarted, ctx: Context) -> None:
        time.sleep(0.4)  # noqa: ASYNC251 - the others wait for longer than is allowed to one
        handled.append(event.task_id)

    with structlog.testing.capture_logs() as logs:
        async with house.working(takes_its_time) as transport:
            for number in range(4):
                await transport.publish(started(f"t{number}"))
            await eventually(lambda: len(handled) == 4)
            await eventually(lambda: is_settled(house, "takes_its_time"))
    assert [entry for entry in logs if entry["event"] == "delivery_overdue"] == []
