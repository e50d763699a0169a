"""One consumer fails, another blocks, another is killed by what it gets: a third one must not notice."""

from contextlib import ExitStack

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage


def _inject(stage: Stage) -> None:
    for_s = stage.pick(20.0, 300.0)
    stage.plan(f"for {for_s:g} s one consumer fails with every event and one blocks its process now and then")
    with ExitStack() as stack:
        stack.enter_context(stage.fault("always fails", "consumer fails", of_consumer="fails"))
        stack.enter_context(stage.fault("blocks", "consumer blocks", of_consumer="blocks"))
        stage.sleep(for_s)


def _inject_poison(stage: Stage) -> None:
    for_s = stage.pick(15.0, 100.0)
    stage.plan(f"for {for_s:g} s one event in a hundred kills the process of the consumer that gets it")
    with stage.fault("is killed by its events", "consumer crashes", of_consumer="crashes"):
        stage.sleep(for_s)


SCENARIOS = (
    Scenario(
        name="failing-consumers",
        sentence="One consumer fails with every event, one blocks its process for seconds: dead letters are accounted "
        "for, and others go on",
        inject=_inject,
        layout=Layout(ingest_nodes=1, workers=1, consumers=("effects", "fails", "blocks")),
        traffic=Traffic(callbacks=500, rate=20.0),
        full_traffic=Traffic(callbacks=6_000, rate=20.0),
        meant_to_fail=("fails",),
        settles_within_s=150.0,
    ),
    Scenario(
        name="poison-events",
        sentence="Some events kill the process of the consumer that gets them: they end as dead letters, and take no "
        "neighbour along",
        inject=_inject_poison,
        layout=Layout(ingest_nodes=1, workers=1, consumers=("effects", "crashes")),
        traffic=Traffic(callbacks=400, rate=20.0),
        full_traffic=Traffic(callbacks=2_000, rate=20.0),
        meant_to_fail=("crashes",),
        # Six crashes each, with a pause of up to 5 s after each, one event at a time.
        settles_within_s=600.0,
    ),
)
