"""Wall clocks that step, back and forth, and stand still. Nothing that measures time may notice."""

from collections.abc import Callable
from contextlib import ExitStack

from msgspec import Struct, structs

from chaos.faults.interposer import Interposer, cannot_interpose
from chaos.machine.servers import Servers
from chaos.scenario import Scenario, Traffic, Wiring, arrange_directly
from chaos.scenarios.pacing import wait_moving
from chaos.stage import Stage

HOUR_S = 3600.0

#: An ingest node that is an hour ahead takes each signature of the sender for expired: the sender's own patience, 25 s
#: of refusals, is longer than this.
_LASTS_S = (4.0, 10.0)
_SHORT_LASTS_S = (3.0, 5.0)


class Step(Struct, frozen=True, kw_only=True):
    """What befalls the clock of `victim`."""

    name: str
    victim: str
    begin: Callable[[Interposer], None]


def _ahead(interposer: Interposer) -> None:
    interposer.step_clock(HOUR_S)


def _back(interposer: Interposer) -> None:
    interposer.step_clock(-HOUR_S)


STEPS = tuple(
    Step(name=name, victim=victim, begin=begin)
    for victim in ("ingest nodes", "workers")
    for name, begin in (
        ("clock an hour ahead", _ahead),
        ("clock an hour back", _back),
        ("clock stands still", Interposer.freeze_clock),
    )
)


def _arrange(stage: Stage, servers: Servers, stack: ExitStack) -> Wiring:
    interposers = {}
    for victim in ("ingest nodes", "workers"):
        folder = stage.folder / f"clock of {victim}"
        folder.mkdir()
        # Nothing is to fail on any disk.
        interposers[victim] = stack.enter_context(Interposer(folder, disk=folder))
    stage.props["interposers"] = interposers
    return structs.replace(
        arrange_directly(stage, servers, stack),
        ingest_environ=interposers["ingest nodes"].environ,
        worker_environ=interposers["workers"].environ,
    )


def _inject(stage: Stage) -> None:
    steps = list(STEPS) * stage.pick(1, 5)
    stage.rng.shuffle(steps)
    stage.plan(", ".join(f"{step.victim}: {step.name}" for step in steps))
    for step in steps:
        _step(stage, step)
        wait_moving(stage)


def _step(stage: Stage, step: Step) -> None:
    interposer: Interposer = stage.props["interposers"][step.victim]
    with stage.fault(step.name, step.victim, steps_clock=True):
        step.begin(interposer)
        stage.sleep(stage.rng.uniform(*stage.pick(_SHORT_LASTS_S, _LASTS_S)))
        interposer.heal()


SCENARIOS = (
    Scenario(
        name="clock-steps",
        sentence="the wall clock of the ingest nodes, or of the workers, steps an hour ahead or back, or stands still",
        inject=_inject,
        arrange=_arrange,
        cannot_run=cannot_interpose,
        traffic=Traffic(callbacks=300, rate=20.0),
    ),
)
