"""The broker is away for longer than the sender's patience."""

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage


def _inject(stage: Stage) -> None:
    away_s = stage.pick(30.0, 600.0)
    stage.plan(f"the broker is away for {away_s:g} s")
    # Until it is back and accepts clients the fault lasts.
    with stage.fault("broker down", "broker", drains_within_s=120.0):
        stage.servers.rabbitmq.stop()
        stage.sleep(away_s)
        stage.servers.rabbitmq.start()
    stage.sleep(10.0)


SCENARIOS = (
    Scenario(
        name="broker-down",
        sentence="The broker is shut down for 30 s (10 minutes) at 50 callbacks a second; drained within 2 minutes",
        inject=_inject,
        layout=Layout(workers=1),
        traffic=Traffic(callbacks=500, rate=50.0),
        settles_within_s=150.0,
    ),
)
