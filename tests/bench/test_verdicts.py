"""What becomes of a target."""

from collections.abc import Sequence

import pytest

from bench.comparisons import archive, demo, end_to_end, growth_bodies, latency, lonely, sitting, start_up
from bench.contenders import accepting as accepting_servers
from bench.contenders import handling as handling_workers
from bench.contenders import storing as storing_workers
from bench.results import CPU_US, PER_S, Comparison, Contestant
from bench.selection import ALL, WITH_TARGETS
from bench.targets import TARGETS, Target
from bench.verdicts import judge, judge_all

#: Who runs in each comparison without --all.
CONTENDERS = {
    "accepting": {server.name for server in accepting_servers.SERVERS},
    "latency": {server.name for server in latency.SERVERS},
    "growth-bodies": {
        growth_bodies.contender_name(server, size_kib)
        for server in (accepting_servers.OURS, accepting_servers.FASTIFY_AMQPLIB)
        for size_kib in growth_bodies.SIZES_KIB
    },
    "spooling": {accepting_servers.OURS_EMBEDDED.name, accepting_servers.OURS_SPOOLING.name},
    "handling": {worker.name for worker in handling_workers.WORKERS},
    "handling-real": {worker.name for worker in storing_workers.WORKERS},
    "lonely": {worker.name for worker in lonely.WORKERS},
    "end-to-end": {end_to_end.contender_name(end_to_end.TARGET_RATE), end_to_end.ROUND_TRIP},
    "sitting": {sitting.UP},
    "demo": {demo.DEMO},
    "start-up": set(start_up.COMMANDS),
    "archive": {one.name for one in (*archive.FETCHING, *archive.ONCE)},
}


def comparison(**rounds: Sequence[float]) -> Comparison:
    contestants = [
        Contestant(name=name, rounds=[{PER_S: value, CPU_US: 1e6 / value} for value in values])
        for name, values in rounds.items()
    ]
    return Comparison(name="some", title="some", contestants=contestants)


def target(*, metric: str = PER_S, at_least: float | None = None, at_most: float | None = None) -> Target:
    return Target(
        comparison="some",
        text="ours to the best",
        contender="ours",
        metric=metric,
        peers=("a", "b"),
        at_least=at_least,
        at_most=at_most,
    )


def test_a_ratio_is_that_of_the_medians_to_the_best_peer() -> None:
    made = comparison(ours=[30.0, 40.0, 90.0], a=[8.0, 10.0, 9.0], b=[1.0, 2.0, 3.0])
    verdict = judge(target(at_least=4), made)
    assert verdict.value == pytest.approx(40 / 9)
    assert verdict.is_met
    assert verdict.low == pytest.approx(30 / 8)
    assert verdict.high == pytest.approx(10)
    assert verdict.text == "ours to the best (a)"


def test_a_ratio_that_is_too_small_is_missed() -> None:
    assert judge(target(at_least=4), comparison(ours=[39.0], a=[10.0], b=[2.0])).is_met is False


def test_of_what_should_be_small_the_best_peer_has_the_least() -> None:
    made = comparison(ours=[10.0], a=[10.0], b=[20.0])
    assert judge(target(metric=CPU_US, at_most=1.0), made).value == pytest.approx(2.0)
    assert judge(target(metric=CPU_US, at_most=1.0), made).is_met is False


def test_a_bound_that_is_just_reached_is_met() -> None:
    assert judge(target(at_least=2), comparison(ours=[20.0], a=[10.0])).is_met
    assert judge(target(metric=CPU_US, at_most=1.0), comparison(ours=[10.0], a=[10.0])).is_met


@pytest.mark.parametrize("made", [comparison(ours=[], a=[10.0]), comparison(ours=[10.0], a=[], b=[]), comparison()])
def test_what_was_not_measured_is_neither_met_nor_missed(made: Comparison) -> None:
    verdict = judge(target(at_least=1), made)
    assert (verdict.value, verdict.is_met) == (None, None)


def test_rounds_without_a_partner_have_no_spread() -> None:
    verdict = judge(target(at_least=1), comparison(ours=[10.0, 20.0], a=[10.0]))
    assert (verdict.low, verdict.high) == (None, None)
    assert verdict.value == pytest.approx(1.5)


def test_only_the_targets_of_what_was_compared_are_judged() -> None:
    assert judge_all([]) == []
    made = Comparison(name="start-up", title="", contestants=[])
    assert [verdict.comparison for verdict in judge_all([made])] == ["start-up"]


@pytest.mark.parametrize("one", TARGETS, ids=lambda one: one.text)
def test_a_target_names_contenders_that_run_without_all(one: Target) -> None:
    assert one.comparison in ALL
    assert {one.contender, *one.peers} <= CONTENDERS[one.comparison]
    assert (one.at_least is None) != (one.at_most is None)
    assert bool(one.unit) != bool(one.peers)


def test_everything_with_a_target_is_run_by_default() -> None:
    # How much of it all fits into a second of CPU has no bound: it is printed.
    # The archive takes minutes.
    assert {one.comparison for one in TARGETS} == set(WITH_TARGETS) - {"whole"} | {"archive"}
