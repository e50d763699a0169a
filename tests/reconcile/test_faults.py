"""Whatever fails between us and the vendor, the store ends as it would have without."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator import EVERY_FAILURE, ApiFaults, ClassKind, SimulatedClass, make_class
from store import find_recordings
from tests.profiles import examples
from tests.reconcile.world import APP, MORNING_S, World, a_world, callback_of, forged

KINDS = (ClassKind.NORMAL, ClassKind.FAILED, ClassKind.SEVERAL_STREAMS, ClassKind.LONG_PAUSE_FORCE_STOPPED)

#: The time at which something is delivered, and what.
Delivery = tuple[float, Any]


def some_classes(rng: Random) -> list[SimulatedClass]:
    return [
        make_class(
            kind,
            rng,
            sdk_app_id=APP,
            room_id=70_000 + number,
            started_at=MORNING_S + rng.randrange(60, 1200),
            length_s=rng.randrange(300, 1800),
        )
        for number, kind in enumerate(KINDS)
    ]


def deliveries_of(rng: Random, classes: list[SimulatedClass]) -> Iterator[Delivery]:
    """Lose a fifth, repeat a fifth, deliver all as late as it comes; and forge the end of one."""
    for cls in classes:
        for callback in cls.callbacks:
            at_s = callback.timestamp + rng.choice((1, 1, 1, 60, 600, 4000))
            if rng.random() >= 0.2:
                yield at_s, callback
                if rng.random() < 0.2:
                    yield at_s + rng.randrange(1, 900), callback
    victim = rng.choice(classes)
    evil = [{"VideoId": "e", "VideoUrl": "http://evil.example/e.mp4", "VideoSize": 1}]
    content = forged(callback_of(victim, "OnlineRecordFinished"), VideoInfos=evil, Error=None)
    yield victim.created_at + rng.randrange(60, 4000), content | {"Timestamp": victim.created_at + 80_000}


async def live(world: World, deliveries: list[Delivery], *, revoked: tuple[float, float] | None) -> None:
    """Let the morning pass in steps of some minutes, and the rest of the day in larger ones."""
    waiting = sorted(deliveries, key=lambda delivery: delivery[0])
    end_s = MORNING_S + 30 * 3600
    while world.clock.now_s < end_s:
        is_busy = bool(waiting) or world.clock.now_s < MORNING_S + 4 * 3600
        world.clock.pass_by(240 if is_busy else 1800)
        if revoked is not None:
            world.api.faults.is_revoked = revoked[0] <= world.clock.now_s < revoked[1]
        while waiting and waiting[0][0] <= world.clock.now_s:
            await world.deliver(waiting.pop(0)[1])
        await world.settle()


async def end_of(world: World, classes: list[SimulatedClass]) -> list[dict[str, Any]]:
    """Return what the store says of each recording; not by which events, and who told them when."""
    found = [(await find_recordings(world.store, cls.task_id))[0] for cls in classes]
    return [
        {name: value for name, value in msgspec.to_builtins(one).items() if name not in ("events", "found")}
        for one in found
    ]


@settings(parent=examples(quick=2, thorough=200, steps=1), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_the_store_ends_the_same_as_without_faults(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    classes = some_classes(rng)
    deliveries = [*deliveries_of(rng, classes)]
    revoked_at = MORNING_S + rng.randrange(7200)
    async with a_world(tmp_path / f"{seed}-well", classes) as well:
        await live(well, deliveries, revoked=None)
        expected = await end_of(well, classes)
    faults = ApiFaults(share=1 / 3, failures=EVERY_FAILURE, rng=Random(seed), slow_s=0.02, huge_bytes=5 * 1024 * 1024)
    async with a_world(tmp_path / f"{seed}-ill", classes, faults=faults) as ill:
        await live(ill, deliveries, revoked=(revoked_at, revoked_at + rng.randrange(60, 7200)))
        ill.api.faults.share = 0.0
        await ill.pass_by(2 * 3600, step_s=600)
        assert await end_of(ill, classes) == expected
        # Of what was published nothing was forged, and each event once but for repetitions after a fault.
        assert b"evil" not in b"".join(message.body for message in ill.transport.published)
    assert {one["status"] for one in expected} == {"FINISHED"}
    assert {one["verified"] for one in expected} == {True}
    assert "evil" not in str(expected)
