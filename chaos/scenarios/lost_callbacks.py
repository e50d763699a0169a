"""Callbacks that never come, a vendor's API that fails, and processes that ask it and are killed meanwhile."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from random import Random
from threading import Thread

import msgspec
from msgspec import Struct

from chaos.errors import ChaosError
from chaos.machine.deployment import OTHER_APP
from chaos.machine.node import Node
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring, arrange_directly
from chaos.scenarios.killing import RESTART_AFTER_S
from chaos.stage import Stage
from reconcile import Registration, register
from schemas import OnlineRecordFinished, decode
from simulator import (
    PASSING_FAILURES,
    ApiFaults,
    Callback,
    ClassKind,
    ClassTime,
    Patience,
    Sender,
    SimulatedClass,
    VendorApi,
    make_class,
    render,
)
from store import Recording, Store, find_recordings
from tests.reconcile.serving import in_thread, settings_for

#: Classes are held so many times as fast as in truth: what takes an hour there takes two minutes here.
SPEED = 30.0

#: In their own time: when they begin, and how long they last.
_BEGIN_WITHIN_S = 3600
_LENGTHS_S = (600, 1500)

#: Files come of these; of a failed one, none.
_WITH_FILES = (ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS)
_ALL_KINDS = (*_WITH_FILES, ClassKind.FAILED)

_REPLICAS = 2

#: By the clock of the machine: half a minute, and some minutes, in the classes' time.
_SETTINGS = {
    "TIW_RECONCILE_APPS": str(OTHER_APP),
    "TIW_RECONCILE_LIST_EVERY_S": "1",
    "TIW_RECONCILE_ASK_AFTER_S": "5",
}

#: How long all may take, after the last class has ended.
_FOUND_WITHIN_S = 240.0

_SHARE = 0.2


class _Clock:
    """The time of classes, in Unix seconds; it stands still until it is started."""

    def __init__(self, starts_at: int) -> None:
        self.starts_at = starts_at
        self._running: ClassTime | None = None

    def start(self) -> None:
        """Let it go, `SPEED` times as fast as any other."""
        self._running = ClassTime(self.starts_at, speed=SPEED)

    def __call__(self) -> float:
        return float(self.starts_at) if self._running is None else self._running()

    def at(self, moment_s: float) -> float:
        """Return what it was, or will be, at a moment of the machine's clock."""
        return self() + (moment_s - time.time()) * SPEED

    async def wait_until(self, at: float) -> None:
        """Return once it is `at`."""
        await asyncio.sleep(max(0.0, at - self()) / SPEED)


class _Day(Struct, frozen=True, kw_only=True):
    """Classes of another application, which go on by a time of their own, and the API that knows them."""

    classes: tuple[SimulatedClass, ...]
    clock: _Clock
    api: VendorApi


@contextmanager
def _held(rng: Random, kinds: Sequence[ClassKind], count: int, faults: ApiFaults | None = None) -> Iterator[_Day]:
    # All of it lies in the past: nothing of it may be from the future for anybody.
    starts_at = int(time.time()) - 4 * 3600
    classes = tuple(
        make_class(
            kinds[number % len(kinds)],
            rng,
            sdk_app_id=OTHER_APP,
            room_id=60_000 + number,
            started_at=starts_at + 60 + rng.randrange(_BEGIN_WITHIN_S),
            length_s=rng.randrange(*_LENGTHS_S),
        )
        for number in range(count)
    )
    clock = _Clock(starts_at)
    api = VendorApi(classes, clock=clock, sdk_app_ids=[OTHER_APP], faults=faults)
    with in_thread(api):
        yield _Day(classes=classes, clock=clock, api=api)


def _start(stage: Stage, day: _Day) -> list[Node]:
    settings = settings_for(day.api) | _SETTINGS
    nodes = [stage.deployment.add(f"reconcile-{number}", "reconcile", **settings) for number in range(1, _REPLICAS + 1)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
    day.clock.start()
    return nodes


def _inject_lost(stage: Stage) -> None:
    count = stage.pick(200, 1000)
    stage.plan(f"{count} classes of which every callback is lost; one of {_REPLICAS} replicas is killed half-way")
    with _held(stage.rng, _WITH_FILES, count) as day:
        victim = stage.rng.choice(_start(stage, day))
        stage.sleep(_BEGIN_WITHIN_S / SPEED / 2)
        _kill(stage, victim)
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
    with _held(stage.rng, _ALL_KINDS, count, faults) as day, ExitStack() as stack:
        nodes = _start(stage, day)
        sending = stack.enter_context(_sending(stage, day))
        for _ in range(stage.pick(3, 20)):
            stage.sleep(stage.rng.uniform(5, 15))
            _kill(stage, stage.rng.choice(nodes))
        with stage.fault("credentials revoked", "the vendor's API"):
            faults.is_revoked = True
            stage.sleep(stage.rng.uniform(5, 20))
            faults.is_revoked = False
        sending()
        faults.share = 0.0
        found = _wait_found(stage, day)
        _judge(stage, day, found)


def _kill(stage: Stage, node: Node) -> None:
    with stage.fault("SIGKILL", node.name):
        node.kill()
        stage.sleep(RESTART_AFTER_S)
        node.start()
        node.wait_ready()


@contextmanager
def _sending(stage: Stage, day: _Day) -> Iterator[Callable[[], None]]:
    """Send what is not lost while the block runs; yield what waits for the end of it."""
    thread = Thread(target=lambda: asyncio.run(_send(stage, day, Random(stage.seed))), name="callbacks")
    thread.start()
    try:
        yield thread.join
    finally:
        thread.join()


async def _send(stage: Stage, day: _Day, rng: Random) -> None:
    """Register each class and send its callbacks when they come to be, in a sender's order and out of it."""
    due: list[tuple[float, int, SimulatedClass, Callback | None]] = []
    for cls in day.classes:
        due.append((cls.created_at + 1, len(due), cls, None))
        for one in cls.callbacks:
            if rng.random() >= _SHARE:
                due.append((one.timestamp + rng.choice((1, 1, 60, 600)), len(due), cls, one))
                if rng.random() < _SHARE:
                    due.append((one.timestamp + rng.randrange(60, 900), len(due), cls, one))
        if rng.random() < _SHARE:
            due.append((cls.created_at + rng.randrange(120, 2000), len(due), cls, _forged(cls)))
    (address, *_) = stage.deployment.addresses
    async with (
        Store(stage.deployment.wiring.direct_database_url) as store,
        Sender(address, key=None, patience=Patience()) as sender,
    ):
        for at, _, cls, callback in sorted(due, key=lambda one: one[:2]):
            await day.clock.wait_until(at)
            if callback is None:
                await register(store, Registration(sdk_app_id=OTHER_APP, task_id=cls.task_id), after_s=0.0)
            else:
                await sender.send(callback)


_EVIL = "evil.example"


def _forged(cls: SimulatedClass) -> Callback:
    real = cls.callbacks[-1]
    content = msgspec.json.decode(real.event_data) | {
        "Error": None,
        "VideoInfos": [{"VideoId": "e", "VideoUrl": f"http://{_EVIL}/e.mp4", "VideoSize": 1}],
    }
    return msgspec.structs.replace(
        real, event_data=msgspec.json.encode(content).decode(), timestamp=real.timestamp + 3600
    )


def _wait_found(stage: Stage, day: _Day) -> dict[str, Recording]:
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


async def _read(url: str, day: _Day) -> dict[str, Recording]:
    async with Store(url) as store:
        found = [await find_recordings(store, cls.task_id, app=OTHER_APP) for cls in day.classes]
    return {one.task_id: one for recordings in found for one in recordings}


def _judge(stage: Stage, day: _Day, found: dict[str, Recording]) -> None:
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
