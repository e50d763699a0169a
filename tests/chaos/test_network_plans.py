"""Which connections are spoiled, and how, follows from the seed; with --full every kind has its turns."""

from collections import Counter
from random import Random

from chaos.faults.proxy import Kind
from chaos.scenarios.connections import SEEDS, plan_runs, through


def test_the_same_seed_plans_the_same_runs_and_another_one_others() -> None:
    assert (
        plan_runs(Random(1), is_full=True) == plan_runs(Random(1), is_full=True) != plan_runs(Random(2), is_full=True)
    )


def test_every_kind_runs_as_often_as_there_are_seeds_each_time_with_other_numbers() -> None:
    runs = plan_runs(Random(1), is_full=True)
    assert Counter(run.toxic.kind for run in runs) == dict.fromkeys(Kind, SEEDS)
    cuts = {run.toxic.cut_after_bytes for run in runs if run.toxic.kind is Kind.CUT}
    assert len(cuts) > 1


def test_a_url_leads_through_the_proxy_with_all_else_as_it_was() -> None:
    class Somewhere:
        host, port = "127.0.0.1", 4321

    assert through("amqp://user:pass@198.18.0.1:5672/vhost%2Fa", Somewhere()) == (  # type: ignore[arg-type]  # an address is all it takes of a proxy
        "amqp://user:pass@127.0.0.1:4321/vhost%2Fa"
    )
