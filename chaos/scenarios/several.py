"""Several faults at once, as bad days have them."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

from msgspec import Struct

from chaos.scenario import Scenario, Traffic
from chaos.scenarios.killing import kill
from chaos.stage import Stage

#: What goes on at the same time; the victims differ, so that each fault is its own.
_KINDS = ("kill ingest-1", "kill work-1", "kill broker", "freeze ingest-2", "freeze work-2", "database")


class Together(Struct, frozen=True, kw_only=True):
    """Faults that begin within moments of each other, each after its own pause, and last for about `for_s`."""

    kinds: tuple[str, ...]
    after_s: tuple[float, ...]
    for_s: float


def plan_together(rng: Random, count: int) -> list[Together]:
    """Return `count` groups of three faults."""
    groups = []
    for _ in range(count):
        kinds = tuple(rng.sample(_KINDS, 3))
        after_s = tuple(round(rng.uniform(0.0, 2.0), 1) for _ in kinds)
        groups.append(Together(kinds=kinds, after_s=after_s, for_s=round(rng.uniform(3.0, 8.0), 1)))
    return groups


def _inject(stage: Stage) -> None:
    groups = plan_together(stage.rng, stage.pick(2, 40))
    stage.plan("; ".join(f"{' + '.join(group.kinds)} for {group.for_s} s" for group in groups))
    for group in groups:
        with ThreadPoolExecutor() as pool:
            faults = zip(group.kinds, group.after_s, strict=True)
            done = [pool.submit(_one, stage, kind, after_s, group.for_s) for kind, after_s in faults]
            for future in done:
                future.result()
        stage.sleep(stage.pick(3.0, 8.0))


def _one(stage: Stage, kind: str, after_s: float, for_s: float) -> None:
    stage.sleep(after_s)
    how, _, victim = kind.partition(" ")
    if how == "kill":
        kill(stage, victim)
    elif how == "freeze":
        node = stage.deployment.node(victim)
        with stage.fault("SIGSTOP", victim, excuses_deadline=victim.startswith("ingest")):
            node.freeze()
            try:
                stage.sleep(for_s)
            finally:
                node.thaw()
    else:
        postgres = stage.servers.postgres
        with stage.fault("PostgreSQL crash", "PostgreSQL"):
            postgres.crash()
            stage.sleep(for_s)
            postgres.start()


SCENARIOS = (
    Scenario(
        name="several-at-once",
        sentence="Three faults at the same time, again and again: kills, freezes, a database crash",
        inject=_inject,
        traffic=Traffic(callbacks=500, rate=50.0),
        settles_within_s=150.0,
    ),
)
