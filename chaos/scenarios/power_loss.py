"""Everything ends at the same moment, then starts: ingest, workers, broker and database."""

from concurrent.futures import ThreadPoolExecutor

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage


def _lose_power(stage: Stage, *, with_broker: bool) -> None:
    servers, deployment = stage.servers, stage.deployment
    with stage.fault("power loss", "everything", ends_everything=True):
        with ThreadPoolExecutor() as pool:
            ends = [node.kill for node in deployment.nodes]
            ends += [servers.postgres.crash, *([servers.rabbitmq.kill] if with_broker else [])]
            list(pool.map(lambda end: end(), ends))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda start: start(), (servers.postgres.start, servers.rabbitmq.start)))
        deployment.start()


def _inject(stage: Stage) -> None:
    count = stage.pick(2, 20)
    after_s = [stage.rng.uniform(1.0, stage.pick(3.0, 15.0)) for _ in range(count)]
    # Every second time the broker has been away for a moment: what was accepted meanwhile lies in spools alone.
    spooled = [number % 2 == 1 for number in range(count)]
    stage.plan(
        ", ".join(
            f"after {pause_s:.1f} s{' with the broker away already' if is_spooled else ''}"
            for pause_s, is_spooled in zip(after_s, spooled, strict=True)
        )
    )
    for pause_s, is_spooled in zip(after_s, spooled, strict=True):
        stage.sleep(pause_s)
        if is_spooled:
            with stage.fault("broker down", "broker"):
                stage.servers.rabbitmq.kill()
                stage.sleep(4.0)
        _lose_power(stage, with_broker=not is_spooled)
        stage.sleep(6.0)


SCENARIOS = (
    Scenario(
        name="power-loss",
        sentence="SIGKILL of everything at once, servers included, with and without callbacks in the spools; then "
        "start",
        inject=_inject,
        layout=Layout(workers=1, shares_data=True),
        traffic=Traffic(callbacks=500, rate=60.0),
        recovers_within_s=45.0,
        may_give_up="nothing of the receiver ran, for as long as everything takes to start",
        settles_within_s=150.0,
    ),
)
