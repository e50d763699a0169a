"""What is going to happen in a world, planted bugs included: drawn from its seed before it begins."""

from enum import StrEnum
from random import Random

from msgspec import Struct, structs

from chaos.simulation.consumers import Manner
from chaos.simulation.network import Weather


class Bug(StrEnum):
    """A mistake that loses, repeats, delays or makes up callbacks."""

    #: 200 is answered when the callback is written to the wire, not when it is confirmed.
    ANSWERED_BEFORE_CONFIRM = "answered-before-confirm"
    #: 200 is answered when the callback is in the spool's memory, not when it is on disk.
    ANSWERED_BEFORE_SPOOLED = "answered-before-spooled"
    #: A delivery is acknowledged by being handed over.
    ACKED_BEFORE_EFFECT = "acked-before-effect"
    #: The next attempt is said to be kept before it is; the delivery is acknowledged meanwhile.
    ACKED_BEFORE_RETRY_KEPT = "acked-before-retry-kept"
    #: The drain deletes what it has published before it is confirmed.
    DELETED_BEFORE_CONFIRM = "deleted-before-confirm"
    #: Completions are written to a transaction that is rolled back.
    COMPLETIONS_FORGOTTEN = "completions-forgotten"
    #: Events are written to a transaction that is rolled back.
    EVENTS_FORGOTTEN = "events-forgotten"
    #: A key that nobody was given is accepted.
    FORGED_ACCEPTED = "forged-accepted"
    #: Ingest waits for the broker for as long as it takes.
    NO_DEADLINE = "no-deadline"
    #: Recordings are written without their videos.
    RECORDING_SPOILED = "recording-spoiled"


#: Where a process can be made to die: after its next passage, or between any two steps.
INGEST_POINTS = (
    "publish begun",
    "publish kept",
    "publish confirmed",
    "answering",
    "answered",
    "spool written",
    "spool synced",
)
WORKER_POINTS = (
    "committing",
    "committed",
    "effect begun",
    "effect done",
    "acked",
    "retry begun",
    "retry kept",
    "retry confirmed",
    "dead-letter begun",
    "dead-letter kept",
    "dead-letter confirmed",
    "send begun",
    "send kept",
    "send confirmed",
)


class Trouble(StrEnum):
    """What can befall a part of the world."""

    CRASH_AT_POINT = "crash at point"
    CRASH_IN_STEPS = "crash in steps"
    CRASH_ALL = "crash all"
    STOP = "stop"
    RESTART = "restart"
    BROKER_DOWN = "broker down"
    BROKER_BLOCKED = "broker blocked"
    SESSIONS_LOST = "sessions lost"
    STORE_AWAY = "store away"
    STORM = "storm"
    DISK_FAILS = "disk fails"
    CLOCK_STEPS = "clock steps"


class Fault(Struct, frozen=True, kw_only=True):
    """One trouble: when it begins and how long it lasts, in seconds; `pick` chooses whom it befalls."""

    at_s: float
    lasts_s: float
    trouble: Trouble
    pick: int
    detail: str = ""
    steps: int = 0


class Plan(Struct, frozen=True, kw_only=True):
    """A world's parts and its faults.

    `sending_s` is how long callbacks come, `lease_s` that of the workers; `manners` are what handlers may do.
    """

    seed: int
    ingests: int
    workers: int
    classes: int
    sending_s: float
    forged: int
    lease_s: float
    is_one_host: bool
    has_splitted_consumers: bool
    replays: bool
    manners: tuple[Manner, ...]
    weather: Weather
    faults: tuple[Fault, ...]


_WEIGHTS = {
    Trouble.CRASH_AT_POINT: 8,
    Trouble.CRASH_IN_STEPS: 6,
    Trouble.CRASH_ALL: 1,
    Trouble.STOP: 2,
    Trouble.RESTART: 2,
    Trouble.BROKER_DOWN: 2,
    Trouble.BROKER_BLOCKED: 2,
    Trouble.SESSIONS_LOST: 3,
    Trouble.STORE_AWAY: 2,
    Trouble.STORM: 2,
    Trouble.DISK_FAILS: 1,
    Trouble.CLOCK_STEPS: 1,
}


def small_plan(seed: int) -> Plan:
    """Return one that is over in some minutes: few callbacks, handlers that fail at first, many crashes."""
    rng = Random(f"small plan {seed}")
    sending_s = 5.0
    troubles = rng.choices(
        (Trouble.CRASH_AT_POINT, Trouble.CRASH_IN_STEPS, Trouble.SESSIONS_LOST, Trouble.BROKER_DOWN), (6, 3, 2, 1), k=5
    )
    faults = [structs.replace(_draw_fault(rng, trouble, sending_s), lasts_s=2.0) for trouble in troubles]
    faults += [
        structs.replace(_draw_fault(rng, Trouble.CRASH_AT_POINT, sending_s), lasts_s=2.0, detail=detail)
        for detail in ("answered", "spool written", "retry begun")
    ]
    outage = structs.replace(_draw_fault(rng, Trouble.BROKER_DOWN, sending_s), lasts_s=rng.choice((2.0, 12.0)))
    return structs.replace(
        draw_plan(seed),
        classes=rng.randint(2, 4),
        sending_s=sending_s,
        forged=1,
        manners=(Manner.FINE, Manner.FAILS_AT_FIRST, Manner.ASKS_AGAIN),
        replays=False,
        lease_s=30.0,
        # In every third there is none: what only a fault excuses shows itself there.
        faults=tuple(sorted((outage, *faults), key=lambda one: one.at_s)) if seed % 3 else (),
    )


def draw_plan(seed: int) -> Plan:
    """Return the plan of the world of this seed."""
    rng = Random(f"plan {seed}")
    sending_s = rng.choice((5.0, 60.0, 300.0, 900.0))
    troubles = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=rng.choice((0, 2, 4, 8, 12)))
    return Plan(
        seed=seed,
        ingests=rng.randint(1, 3),
        workers=rng.randint(1, 3),
        classes=rng.randint(1, 6),
        sending_s=sending_s,
        forged=rng.randint(0, 2),
        lease_s=rng.choice((15.0, 30.0)),
        is_one_host=rng.random() < 0.5,  # noqa: PLR2004 - one in two
        has_splitted_consumers=rng.random() < 0.5,  # noqa: PLR2004 - one in two
        replays=rng.random() < 0.5,  # noqa: PLR2004 - one in two
        manners=tuple(Manner) if rng.random() < 0.7 else (Manner.FINE,),  # noqa: PLR2004 - seven in ten
        weather=_draw_weather(rng),
        faults=tuple(sorted((_draw_fault(rng, trouble, sending_s) for trouble in troubles), key=lambda one: one.at_s)),
    )


def _draw_weather(rng: Random) -> Weather:
    return Weather(
        slow=rng.choice((0.0, 0.02, 0.2)),
        slow_s=rng.choice((0.05, 0.5, 3.0)),
        lost_confirms=rng.choice((0.0, 0.0, 0.002, 0.01)),
        lost_answers=rng.choice((0.0, 0.02, 0.2)),
        repeated=rng.choice((0.0, 0.002)),
        overtaken=rng.choice((0.0, 0.1, 0.5)),
    )


def _draw_fault(rng: Random, trouble: Trouble, sending_s: float) -> Fault:
    detail, lasts_s = "", rng.choice((0.5, 5.0, 30.0, 120.0, 600.0)) * rng.uniform(0.5, 1.0)
    if trouble is Trouble.CRASH_AT_POINT:
        detail = rng.choice(INGEST_POINTS if rng.random() < 0.4 else WORKER_POINTS)  # noqa: PLR2004 - two in five
    elif trouble is Trouble.STOP:
        lasts_s = min(lasts_s, 120.0)
    elif trouble in (Trouble.STORM, Trouble.CLOCK_STEPS):
        lasts_s = min(lasts_s, 30.0)
    return Fault(
        at_s=rng.uniform(0, sending_s * 1.2),
        lasts_s=lasts_s,
        trouble=trouble,
        pick=rng.randrange(1000),
        detail=detail,
        steps=int(10 ** rng.uniform(0, 3)),
    )
