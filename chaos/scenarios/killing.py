"""SIGKILL: of each kind of process alone, and at random under load."""

from random import Random

from msgspec import Struct

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage

#: What an operator's supervisor takes to start a program again.
RESTART_AFTER_S = 0.5


class Kill(Struct, frozen=True, kw_only=True):
    """One kill of a plan: whom, and how long after the one before has ended."""

    victim: str
    after_s: float


def plan_kills(rng: Random, victims: tuple[str, ...], count: int, *, pause_s: tuple[float, float]) -> list[Kill]:
    """Return `count` kills. Every victim comes in turn, in an order of chance."""
    order: list[str] = []
    while len(order) < count:
        order += rng.sample(victims, len(victims))
    return [Kill(victim=victim, after_s=rng.uniform(*pause_s)) for victim in order[:count]]


def kill(stage: Stage, victim: str) -> None:
    """Kill one victim, as a crash of it would, and start it again."""
    with stage.fault("SIGKILL", victim):
        if victim == "broker":
            stage.servers.rabbitmq.kill()
            stage.servers.rabbitmq.start()
        elif victim.endswith(" child"):
            # Its parent starts it again by itself.
            stage.deployment.node(victim.removesuffix(" child")).kill_child(stage.rng)
        else:
            node = stage.deployment.node(victim)
            node.kill()
            stage.sleep(RESTART_AFTER_S)
            node.start()
            node.wait_ready()


def _inject_each(stage: Stage) -> None:
    victims = ("ingest-1", "ingest-2 child", "work-1", "work-2 child", "broker")
    kills = plan_kills(stage.rng, victims, stage.pick(5, 25), pause_s=(1.0, 2.0))
    _perform(stage, kills)


def _inject_at_random(stage: Stage) -> None:
    victims = ("ingest-1", "ingest-2", "ingest-1 child", "work-1", "work-2", "work-1 child", "work-2 child", "broker")
    kills = plan_kills(stage.rng, victims, stage.pick(8, 200), pause_s=stage.pick((0.2, 1.0), (0.5, 6.0)))
    _perform(stage, kills)


def _perform(stage: Stage, kills: list[Kill]) -> None:
    stage.plan(", ".join(f"{one.victim} after {one.after_s:.1f} s" for one in kills))
    for one in kills:
        stage.sleep(one.after_s)
        kill(stage, one.victim)


SCENARIOS = (
    Scenario(
        name="kill-each",
        sentence="SIGKILL of each kind of process, one at a time: ingest, a child of it, a worker, a child of it, "
        "the broker",
        inject=_inject_each,
        layout=Layout(processes=2, shares_data=True),
        # The kills at random have each victim in turn, too.
        in_short_run=False,
    ),
    Scenario(
        name="kill-random",
        sentence="SIGKILL of ingest nodes, workers, their children and the broker at random, under load",
        inject=_inject_at_random,
        layout=Layout(processes=2),
        traffic=Traffic(callbacks=2_000, rate=60.0),
        full_traffic=Traffic(callbacks=200_000, rate=120.0),
        settles_within_s=180.0,
    ),
)
