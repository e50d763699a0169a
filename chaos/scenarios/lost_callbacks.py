"""Callbacks that never come, a vendor's API that fails, and processes that ask it and are killed meanwhile."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from random import Random

import msgspec

from chaos.errors import ChaosError
from chaos.machine.deployment import OTHER_APP
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring, arrange_directly
from chaos.scenarios.accelerated_day import (
    BEGIN_WITHIN_S,
    REPLICAS,
    SPEED,
    WITH_FILES,
    Day,
    forged,
    held,
    kill_and_restart,
    make_classes,
    new_clock,
    sending,
    start_asking,
)
from chaos.stage import Stage
from schemas import OnlineRecordFinished, decode
from simulator import (
    PASSING_FAILURES,
    ApiFaults,
    ClassKind,
    SimulatedClass,
    render,
)
from store import Recording, Store, find_recordings

_ALL_KINDS = (*WITH_FILES, ClassKind.FAILED)

#: How long all may take, after the last class has ended.
_FOUND_WITHIN_S = 240.0


@contextmanager
def _held(stage: Stage, kinds: Sequence[ClassKind], count: int, faults: ApiFaults | None = None) -> Iterator[Day]:
    clock = new_clock()
    classes = make_classes(stage.rng, kinds, count, starts_at=clock.starts_at)
    with held(classes, clock, faults) as day:
        yield day


def _inject_lost(stage: Stage) -> None:
    count = stage.pick(200, 1000)
    stage.plan(f"{count} classes of which every callback is lost; one of {REPLICAS} replicas is killed half-way")
    with _held(stage, WITH_FILES, count) as day:
        victim = stage.rng.choice(start_asking(stage, day))
        stage.sleep(BEGIN_WITHIN_S / SPEED / 2)
        kill_and_restart(stage, victim)
        found = _wait_found(stage, day)
        starts = [
            day.clock.at(datetime.fromisoformat(one.found_at).timestamp()) - cls.created_at
            for cls in day.classes
            if (recording := found.get(cls.task_id)) is not None
            for one in recording.found
            if one.event_type == "OnlineRecordStarted"
        ]
        stage.measure("starts that were not found", count - len(starts), "recordings", at_most=0)
        latest = round(max(starts, default=0.0))
        stage.measure("until a start was known, at most", latest, "s of class time", at_most=120)
        _judge(stage, day, found)


def _inject_faults(stage: Stage) -> None:
    count = stage.pick(60, 400)
    # Not what pauses an application: that comes once, and for long. tests/reconcile/test_faults.py has all of it.
    failures = PASSING_FAILURES
    faults = ApiFaults(share=1 / 3, failures=failures, rng=Random(stage.seed), slow_s=1.0, huge_bytes=5_000_000)
    stage.plan(
        f"{count} classes; a fifth of their callbacks is lost, a fifth comes twice, some ends are forged; the API "
        "fails a third of the time; its credentials are revoked for a while; replicas are killed"
    )
    with _held(stage, _ALL_KINDS, count, faults) as day, ExitStack() as stack:
        nodes = start_asking(stage, day)
        sent = stack.enter_context(sending(stage, day, forge=forged))
        for _ in range(stage.pick(3, 20)):
            stage.sleep(stage.rng.uniform(5, 15))
            kill_and_restart(stage, stage.rng.choice(nodes))
        with stage.fault("credentials revoked", "the vendor's API"):
            faults.is_revoked = True
            stage.sleep(stage.rng.uniform(5, 20))
            faults.is_revoked = False
        sent()
        faults.share = 0.0
        found = _wait_found(stage, day)
        _judge(stage, day, found)


def _wait_found(stage: Stage, day: Day) -> dict[str, Recording]:
    """Return what is known of each class once all are finished and verified, or it is clear that they will not be."""

    def look() -> dict[str, Recording]:
        return asyncio.run(_read(stage.deployment.wiring.direct_database_url, day))

    def all_are_found() -> bool:
        found = look()
        return len(found) == len(day.classes) and all(one.verified for one in found.values())

    last_s = (max(cls.callbacks[-1].timestamp for cls in day.classes) - day.clock()) / SPEED
    with suppress(ChaosError):
        stage.wait_until(all_are_found, "every class found", within_s=max(0.0, last_s) + _FOUND_WITHIN_S)
    return look()


async def _read(url: str, day: Day) -> dict[str, Recording]:
    async with Store(url) as store:
        found = [await find_recordings(store, cls.task_id, app=OTHER_APP) for cls in day.classes]
    return {one.task_id: one for recordings in found for one in recordings}


def _judge(stage: Stage, day: Day, found: dict[str, Recording]) -> None:
    differing = [cls.task_id for cls in day.classes if not _is_as_the_vendor_says(cls, found.get(cls.task_id))]
    for task_id in differing[:5]:
        stage.say(f"not as the vendor says: {found.get(task_id)}"[:1_500])
    stage.measure("recordings that are not as the vendor says", len(differing), "recordings", at_most=0)
    times = sorted(request.at_s for request in day.api.requests.all)
    busiest = max((bisect_left(times, since + 1.0) - number for number, since in enumerate(times)), default=0)
    stage.measure("requests in the busiest second, of all replicas", busiest, "requests", at_most=19)
    ends = sorted(
        day.clock.at(datetime.fromisoformat(one.found_at).timestamp()) - one_end
        for cls in day.classes
        if (recording := found.get(cls.task_id)) is not None
        for one in recording.found
        if one.event_type == "OnlineRecordFinished"
        for one_end in [cls.callbacks[-1].timestamp]
    )
    late = (
        f", half of them within {ends[len(ends) // 2]:.0f} s, all within {ends[-1]:.0f} s of class time" if ends else ""
    )
    stage.say(f"{len(times)} requests; {len(ends)} of {len(day.classes)} ends were found by asking{late}")


def _is_as_the_vendor_says(cls: SimulatedClass, recording: Recording | None) -> bool:
    event = decode(render(cls.callbacks[-1]), received_at_us=0).event
    assert isinstance(event, OnlineRecordFinished)  # noqa: S101 - the last of each kind
    if recording is None or recording.status != "FINISHED" or not recording.verified:
        return False
    if (recording.error is None) != (event.error is None):
        return False
    return [video.video_url for video in recording.videos] == [video.video_url for video in event.video_infos]


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    wiring = arrange_directly(stage, servers, stack)
    # Its callbacks are unsigned, so that the harness's key is nobody else's.
    return msgspec.structs.replace(wiring, ingest_environ={"TIW_ALLOW_UNSIGNED": str(OTHER_APP)})


_LAYOUT = Layout(ingest_nodes=1, workers=1)

SCENARIOS = (
    Scenario(
        name="lost-callbacks",
        sentence="every callback of 200 classes is lost; two processes that ask the vendor find all, and one is killed",
        inject=_inject_lost,
        layout=_LAYOUT,
        traffic=Traffic(callbacks=200, rate=5.0),
    ),
    Scenario(
        name="vendor-faults",
        sentence="a fifth of callbacks lost, a fifth repeated, ends forged; the vendor's API fails a third of the "
        "time, revokes the credentials for a while, and the processes that ask it are killed",
        inject=_inject_faults,
        arrange=_arrange,
        layout=_LAYOUT,
        traffic=Traffic(callbacks=200, rate=5.0),
    ),
)
