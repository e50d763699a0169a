"""PostgreSQL: restarted, crashed, and its connections ended in the middle of transactions."""

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage

#: Whoever works in one of our databases loses the connection, of some as chance will have it.
_TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname LIKE 'tiw_%' AND pid <> pg_backend_pid() AND random() < 0.5"
)


def _inject(stage: Stage) -> None:
    plan = ["restart", "crash"] * stage.pick(1, 10)
    stage.rng.shuffle(plan)
    away_s = [stage.rng.uniform(1.0, stage.pick(4.0, 30.0)) for _ in plan]
    stage.plan(", ".join(f"{how}, away for {for_s:.1f} s" for how, for_s in zip(plan, away_s, strict=True)))
    postgres = stage.servers.postgres
    for how, for_s in zip(plan, away_s, strict=True):
        with stage.fault(f"PostgreSQL {how}", "PostgreSQL"):
            if how == "crash":
                postgres.crash()
            else:
                postgres.stop()
            stage.sleep(for_s)
            postgres.start()
        stage.sleep(4.0)


def _inject_terminations(stage: Stage) -> None:
    count = stage.pick(15, 300)
    pauses_s = [stage.rng.uniform(0.1, 1.0) for _ in range(count)]
    stage.plan(f"{count} times half of the connections, {min(pauses_s):.1f} to {max(pauses_s):.1f} s apart")
    for pause_s in pauses_s:
        with stage.fault("connections terminated", "PostgreSQL"):
            stage.servers.postgres.query(_TERMINATE)
        stage.sleep(pause_s)


SCENARIOS = (
    Scenario(
        name="database-restarts",
        sentence="PostgreSQL restarted in order, and crashed with all its processes",
        inject=_inject,
        layout=Layout(ingest_nodes=1, workers=1),
        traffic=Traffic(callbacks=500, rate=60.0),
    ),
    Scenario(
        name="database-terminates",
        sentence="PostgreSQL ends connections of workers at random, in the middle of transactions",
        inject=_inject_terminations,
        layout=Layout(ingest_nodes=1),
        traffic=Traffic(callbacks=1_000, rate=100.0),
        full_traffic=Traffic(callbacks=20_000, rate=100.0),
    ),
)
