"""Wall clocks that step, back and forth, and stand still. Nothing that measures time may notice."""

from collections.abc import Callable
from contextlib import ExitStack

from msgspec import Struct, structs

from chaos.errors import ChaosError
from chaos.faults.interposer import Interposer, cannot_interpose
from chaos.machine.servers import Servers
from chaos.scenario import Layout, Scenario, Traffic, Wiring, arrange_directly
from chaos.stage import Stage, wait_moving

HOUR_S = 3600.0

#: The sender's signatures are good for an hour: an ingest node that is ahead by more takes them for expired. The
#: sender's patience, 25 s of refusals, is longer than this.
_LASTS_S = (4.0, 10.0)
_SHORT_LASTS_S = (3.0, 5.0)


class Step(Struct, frozen=True, kw_only=True):
    """What befalls the clock of `victim`."""

    name: str
    victim: str
    begin: Callable[[Interposer], None]


def _ahead(interposer: Interposer) -> None:
    interposer.step_clock(HOUR_S)


def _far_ahead(interposer: Interposer) -> None:
    interposer.step_clock(2 * HOUR_S)


def _back(interposer: Interposer) -> None:
    interposer.step_clock(-HOUR_S)


INGEST, WORKERS = "ingest nodes", "workers"

STEPS = (
    Step(name="clock two hours ahead, signatures expired", victim=INGEST, begin=_far_ahead),
    Step(name="clock an hour back", victim=WORKERS, begin=_back),
    Step(name="clock an hour ahead", victim=WORKERS, begin=_ahead),
    Step(name="clock an hour back", victim=INGEST, begin=_back),
    Step(name="clock stands still", victim=WORKERS, begin=Interposer.freeze_clock),
    Step(name="clock stands still", victim=INGEST, begin=Interposer.freeze_clock),
    Step(name="clock an hour ahead", victim=INGEST, begin=_ahead),
)
_STEPS_IN_SHORT_RUN = 3


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    interposers = {}
    for victim in (INGEST, WORKERS):
        folder = stage.folder / victim.replace(" ", "-")
        folder.mkdir()
        # Nothing is to fail on any disk.
        interposers[victim] = stack.enter_context(Interposer(folder, disk=folder))
    stage.props["interposers"] = interposers
    return structs.replace(
        arrange_directly(stage, servers, stack),
        ingest_environ=interposers[INGEST].environ,
        worker_environ=interposers[WORKERS].environ,
    )


def _inject(stage: Stage) -> None:
    steps = stage.pick(list(STEPS[:_STEPS_IN_SHORT_RUN]), list(STEPS) * 5)
    stage.rng.shuffle(steps)
    stage.plan(", ".join(f"{step.victim}: {step.name}" for step in steps))
    for step in steps:
        _step(stage, step)
        wait_moving(stage)


def _step(stage: Stage, step: Step) -> None:
    interposer: Interposer = stage.props["interposers"][step.victim]
    if not interposer.listeners:
        raise ChaosError(f"the {step.victim} do not listen to what is said about the clock")
    with stage.fault(step.name, step.victim, steps_clock=True):
        step.begin(interposer)
        stage.sleep(stage.rng.uniform(*stage.pick(_SHORT_LASTS_S, _LASTS_S)))
        interposer.heal()


SCENARIOS = (
    Scenario(
        name="clock-steps",
        sentence="the wall clock of the ingest nodes, or of the workers, steps hours ahead or back, or stands "
        "still; signatures that look expired meanwhile are refused, and accepted when they are sent again",
        inject=_inject,
        arrange=_arrange,
        cannot_run=cannot_interpose,
        layout=Layout(workers=1),
        traffic=Traffic(callbacks=200, rate=20.0, tail_s=2.0),
    ),
)
