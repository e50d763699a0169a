from typing import Any

import pytest

from simulator import ClassKind, ClassTime, Day, SimulationConfig, make_classes, schedule, simulate
from simulator.classes import DEFAULT_KINDS
from simulator.sending import SYSTEM_CLOCK
from simulator.vendor_answers import timeline
from tests.simulator.fake_clock import FakeClock
from tests.simulator.receiver import KEY, is_signed, receiving

APP = 1_400_000_001
MIDNIGHT = 1_793_462_400


def plan(**changes: Any) -> Any:
    options = {"kinds": DEFAULT_KINDS, "sdk_app_id": APP, "seed": 1, "duplicates": 0.0, "disorder": 0.0}
    return list(schedule(**{"classes": 60, **options, **changes}))


def test_the_time_of_classes_goes_fast_until_it_is_told_not_to() -> None:
    clock = FakeClock()
    time = ClassTime(MIDNIGHT, speed=100, until=MIDNIGHT + 1_000, clock=clock.clock)
    times = []
    for _ in range(4):
        times.append(time() - MIDNIGHT)
        clock.now_s += 5

    assert times == [0, 500, 1_000, 1_005]


@pytest.mark.parametrize("after_s", [0, 1, 999, 1_000, 1_001, 5_000])
async def test_one_can_wait_for_a_time_of_the_classes(after_s: int) -> None:
    clock = FakeClock()
    time = ClassTime(MIDNIGHT, speed=100, until=MIDNIGHT + 1_000, clock=clock.clock)

    await time.wait_until(MIDNIGHT + after_s)

    assert time() == pytest.approx(MIDNIGHT + after_s)
    before = clock.now_s
    await time.wait_until(MIDNIGHT)
    assert clock.now_s == before


def test_two_processes_that_are_told_the_same_have_the_same_time() -> None:
    began_s = SYSTEM_CLOCK.unix_s() - 10
    first, second = (ClassTime(MIDNIGHT, speed=100, began_s=began_s) for _ in range(2))

    assert first() == pytest.approx(second(), abs=10)
    assert first() == pytest.approx(MIDNIGHT + 1_000, abs=50)


@pytest.mark.parametrize("rooms", [None, 50])
def test_all_classes_are_held_within_their_day(rooms: int | None) -> None:
    day = Day(starts_at=MIDNIGHT, rooms=rooms)
    classes = list(make_classes(200, sdk_app_id=APP, seed=1, day=day))

    assert all(MIDNIGHT <= cls.created_at + 5 < cls.callbacks[-1].timestamp < MIDNIGHT + 86_400 for cls in classes)
    assert len({cls.room_id for cls in classes}) == rooms or 200
    last: dict[int, int] = {}
    for cls in classes:
        # One recording at a time in a room.
        assert cls.created_at > last.get(cls.room_id, 0)
        last[cls.room_id] = cls.callbacks[-1].timestamp


def test_no_class_is_shorter_than_the_day_says() -> None:
    kinds = tuple(ClassKind)
    day = Day(starts_at=MIDNIGHT, shortest_s=180)
    classes = list(make_classes(90, sdk_app_id=APP, seed=1, kinds=kinds, day=day))
    drawn = list(make_classes(90, sdk_app_id=APP, seed=1, kinds=kinds, day=Day(starts_at=MIDNIGHT)))

    lengths = [[timeline(cls) for cls in some] for some in (classes, drawn)]
    shortest, short = (
        min((line.stopped_at or line.finished_at or 0) - line.cls.created_at - 5 for line in some) for some in lengths
    )
    assert short < 120
    assert shortest >= 180
    assert [cls.task_id for cls in classes] == [cls.task_id for cls in drawn]


@pytest.mark.parametrize(("drop", "least", "most"), [(0.0, 0, 0), (0.2, 20, 60), (1.0, 190, 190)])
def test_a_share_of_all_callbacks_is_lost_with_every_copy(drop: float, least: int, most: int) -> None:
    sends = plan(drop=drop, duplicates=0.5)

    dropped = {send.callback.event_id for send in sends if send.is_dropped}
    assert least <= len(dropped) <= most
    assert dropped.isdisjoint(send.callback.event_id for send in sends if not send.is_dropped)
    assert [send.callback for send in sends] == [send.callback for send in plan(duplicates=0.5)]


def test_nothing_is_due_before_it_came_to_be_nor_before_what_it_follows() -> None:
    sends = plan(disorder=0.5, duplicates=0.5)

    assert all(send.due_at >= send.callback.timestamp for send in sends)
    assert any(send.due_at > send.callback.timestamp for send in sends)


async def test_callbacks_are_sent_when_the_classes_have_come_so_far() -> None:
    clock = FakeClock()
    time = ClassTime(MIDNIGHT, speed=1_000, clock=clock.clock)
    seen = []
    async with receiving() as receiver:
        config = SimulationConfig(
            url=receiver.url, sdk_app_id=APP, key=KEY, classes=10, day=Day(starts_at=MIDNIGHT), duplicates=0.0, drop=0.3
        )
        report = await simulate(
            config, on_progress=lambda progress: seen.append(progress.classes_done), clock=clock.clock, class_time=time
        )

    assert report.sent == report.accepted == len(receiver.bodies)
    assert report.dropped_ids
    assert seen[-1] == 10
    assert clock.now_s - FakeClock().now_s < 86.4
    at = [members["Timestamp"] for members in receiver.members]
    assert at
    assert min(at) >= MIDNIGHT


async def test_with_every_callback_dropped_nothing_is_sent() -> None:
    async with receiving() as receiver:
        config = SimulationConfig(url=receiver.url, sdk_app_id=APP, key=KEY, classes=20, drop=1.0)
        report = await simulate(config)

    assert receiver.bodies == []
    assert (report.sent, report.gave_up, report.duplicates) == (0, 0, 0)
    assert len(report.dropped_ids) > 50


async def test_the_key_can_be_changed_while_callbacks_are_sent() -> None:
    keys = iter(["the first key"] * 5 + ["the second key"] * 1_000)
    async with receiving() as receiver:
        config = SimulationConfig(url=receiver.url, sdk_app_id=APP, key=KEY, classes=10, concurrency=1)
        await simulate(config, key=lambda: next(keys))

    signed = [is_signed(members, "the first key") for members in receiver.members]
    assert signed[:5] == [True] * 5
    assert not any(signed[5:])
    assert all(is_signed(members, "the second key") for members in receiver.members[5:])
