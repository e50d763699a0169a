"""SIGSTOP for longer than every time-out, then SIGCONT: the zombie must do no harm."""

from contextlib import ExitStack

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage

#: A lease lasts 30 s, a statement 15 s, a heartbeat less: after this everybody has given the frozen one up.
_OUTLASTS_ALL_S = 42.0


def _inject_processes(stage: Stage) -> None:
    rounds = stage.pick(1, 6)
    for_s = [stage.rng.uniform(_OUTLASTS_ALL_S, _OUTLASTS_ALL_S + stage.pick(1.0, 30.0)) for _ in range(rounds)]
    victims = [
        (stage.rng.choice(("ingest-1", "ingest-2")), stage.rng.choice(("work-1", "work-2"))) for _ in range(rounds)
    ]
    stage.plan(
        ", ".join(f"{' and '.join(who)} for {how_long:.0f} s" for who, how_long in zip(victims, for_s, strict=True))
    )
    for (ingest, worker), how_long in zip(victims, for_s, strict=True):
        with ExitStack() as stack:
            stack.enter_context(stage.fault("SIGSTOP", ingest, excuses_deadline=True))
            stack.enter_context(stage.fault("SIGSTOP", worker))
            for name in (ingest, worker):
                node = stage.deployment.node(name)
                node.freeze()
                stack.callback(node.thaw)
            stage.sleep(how_long)
        stage.sleep(6.0)


def _inject_broker(stage: Stage) -> None:
    rounds = stage.pick(1, 6)
    for_s = [stage.rng.uniform(*stage.pick((20.0, 21.0), (45.0, 90.0))) for _ in range(rounds)]
    stage.plan(", ".join(f"the broker for {how_long:.0f} s" for how_long in for_s))
    for how_long in for_s:
        with stage.fault("SIGSTOP", "broker"):
            stage.servers.rabbitmq.pause()
            try:
                stage.sleep(how_long)
            finally:
                stage.servers.rabbitmq.resume()
        stage.sleep(8.0)


SCENARIOS = (
    Scenario(
        name="freeze-processes",
        sentence="SIGSTOP of an ingest node and of a worker with deliveries in its hands, for longer than a lease and "
        "every time-out, then SIGCONT",
        inject=_inject_processes,
        traffic=Traffic(callbacks=500, rate=40.0),
        # Half of the tries go to a node that is frozen for longer than the sender's patience with one try.
        settles_within_s=120.0,
    ),
    Scenario(
        name="freeze-broker",
        sentence="SIGSTOP of the broker: its connections stay open and nothing answers; then SIGCONT",
        inject=_inject_broker,
        layout=Layout(ingest_nodes=1, workers=1),
        traffic=Traffic(callbacks=500, rate=50.0),
    ),
)
