"""Classes of another application that go on faster than any clock, beside the callbacks of the ledger.

Their callbacks are in no ledger: a scenario says itself what must become of them.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from threading import Thread

import msgspec
from msgspec import Struct

from chaos.machine.deployment import OTHER_APP
from chaos.machine.node import Node
from chaos.scenarios.killing import RESTART_AFTER_S
from chaos.stage import Stage
from reconcile import Registration, register
from simulator import (
    ApiFaults,
    Bucket,
    Callback,
    ClassKind,
    ClassTime,
    Patience,
    Sender,
    SimulatedClass,
    VendorApi,
    make_class,
)
from store import Store
from tests.reconcile.serving import in_thread, settings_for

#: Classes are held so many times as fast as in truth: what takes an hour there takes two minutes here.
SPEED = 30.0

#: In their own time: when they begin, and how long they last.
BEGIN_WITHIN_S = 3600
_LENGTHS_S = (600, 1500)

#: Files come of these; of a failed one, none.
WITH_FILES = (ClassKind.NORMAL, ClassKind.SEVERAL_STREAMS)

REPLICAS = 2

#: By the clock of the machine: half a minute, and some minutes, in the classes' time.
_SETTINGS = {
    "TIW_RECONCILE_APPS": str(OTHER_APP),
    "TIW_RECONCILE_LIST_EVERY_S": "1",
    "TIW_RECONCILE_ASK_AFTER_S": "5",
}

SHARE = 0.2


class DayClock:
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


class Day(Struct, frozen=True, kw_only=True):
    """Classes of another application, which go on by a time of their own, and the API that knows them."""

    classes: tuple[SimulatedClass, ...]
    clock: DayClock
    api: VendorApi


def new_clock() -> DayClock:
    """Return a clock of which all lies in the past: nothing of it may be from the future for anybody."""
    return DayClock(int(time.time()) - 4 * 3600)


def make_classes(
    rng: Random,
    kinds: Sequence[ClassKind],
    count: int,
    *,
    starts_at: int,
    begin_within_s: int = BEGIN_WITHIN_S,
    bucket_of: Callable[[int], Bucket] = lambda _: Bucket(),
) -> tuple[SimulatedClass, ...]:
    """Return classes, which begin within so long; `bucket_of` says where the files of each lie, by its number."""
    return tuple(
        make_class(
            kinds[number % len(kinds)],
            rng,
            sdk_app_id=OTHER_APP,
            room_id=60_000 + number,
            started_at=starts_at + 60 + rng.randrange(begin_within_s),
            length_s=rng.randrange(*_LENGTHS_S),
            bucket=bucket_of(number),
        )
        for number in range(count)
    )


@contextmanager
def held(classes: tuple[SimulatedClass, ...], clock: DayClock, faults: ApiFaults | None = None) -> Iterator[Day]:
    """Let the API answer for these classes while the block runs; time stands still until `start_asking`."""
    api = VendorApi(classes, clock=clock, sdk_app_ids=[OTHER_APP], faults=faults)
    with in_thread(api):
        yield Day(classes=classes, clock=clock, api=api)


def start_asking(stage: Stage, day: Day) -> list[Node]:
    """Start the processes that ask the vendor, and then the time of the classes; return the processes."""
    settings = settings_for(day.api) | _SETTINGS
    nodes = [stage.deployment.add(f"reconcile-{number}", "reconcile", **settings) for number in range(1, REPLICAS + 1)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
    day.clock.start()
    return nodes


def kill_and_restart(stage: Stage, node: Node) -> None:
    """Kill a process, as a crash of it would, and start it again."""
    with stage.fault("SIGKILL", node.name):
        node.kill()
        stage.sleep(RESTART_AFTER_S)
        node.start()
        node.wait_ready()


@contextmanager
def sending(
    stage: Stage, day: Day, *, forge: Callable[[SimulatedClass], Callback] | None = None
) -> Iterator[Callable[[], None]]:
    """Send what is not lost while the block runs; yield what waits for the end of it.

    Each class is registered; a share of callbacks is lost, a share comes twice, and some come late. `forge` makes a
    callback that follows a share of the classes.
    """
    thread = Thread(target=lambda: asyncio.run(_send(stage, day, Random(stage.seed), forge)), name="callbacks")
    thread.start()
    try:
        yield thread.join
    finally:
        thread.join()


async def _send(stage: Stage, day: Day, rng: Random, forge: Callable[[SimulatedClass], Callback] | None) -> None:
    """Register each class and send its callbacks when they come to be, in a sender's order and out of it."""
    due: list[tuple[float, int, SimulatedClass, Callback | None]] = []
    for cls in day.classes:
        due.append((cls.created_at + 1, len(due), cls, None))
        for one in cls.callbacks:
            if rng.random() >= SHARE:
                due.append((one.timestamp + rng.choice((1, 1, 60, 600)), len(due), cls, one))
                if rng.random() < SHARE:
                    due.append((one.timestamp + rng.randrange(60, 900), len(due), cls, one))
        if rng.random() < SHARE and forge is not None:
            due.append((cls.created_at + rng.randrange(120, 2000), len(due), cls, forge(cls)))
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


def forged(cls: SimulatedClass) -> Callback:
    """Return an end of a class that the vendor did not send, later than its own, with a file of somebody else."""
    real = cls.callbacks[-1]
    content = msgspec.json.decode(real.event_data) | {
        "Error": None,
        "VideoInfos": [{"VideoId": "e", "VideoUrl": f"http://{_EVIL}/e.mp4", "VideoSize": 1}],
    }
    return msgspec.structs.replace(
        real, event_data=msgspec.json.encode(content).decode(), timestamp=real.timestamp + 3600
    )
