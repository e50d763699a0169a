"""What counters of several processes come to, whatever restarts, goes away, or tells nonsense."""

import math

import pytest

from console.peers import PeerMetrics, Sample
from console.rates import KEPT_S, Rates, Series, counters_of, growth, quantile, values_of
from tests.console.nodes import silent, told

ACCEPTED = "tiw_callbacks_accepted_total"


def accepted(count: float, address: str = "a") -> PeerMetrics:
    return told({ACCEPTED: {"OnlineRecordStarted": count}}, address=address)


def looked(*looks: tuple[float, list[PeerMetrics]]) -> Rates:
    rates = Rates()
    for at_s, peers in looks:
        rates.look(at_s, peers)
    return rates


def test_a_rate_is_what_all_processes_counted_since_the_looks_before() -> None:
    rates = looked(
        (0, [accepted(1000), accepted(5, "b")]),
        (10, [accepted(1010), accepted(15, "b")]),
        (20, [accepted(1020), accepted(25, "b")]),
    )
    assert rates.per_minute(ACCEPTED) == pytest.approx(120)
    assert rates.grown(ACCEPTED) == 40


def test_one_look_says_nothing_of_a_rate_nor_do_some_seconds() -> None:
    assert looked((0, [accepted(10)])).per_minute(ACCEPTED) is None
    assert looked((0, [accepted(10)]), (2, [accepted(20)])).per_minute(ACCEPTED) is None
    assert looked((0, [accepted(10)]), (9, [accepted(10)])).per_minute(ACCEPTED) == 0


def test_a_process_that_was_started_anew_counts_from_nothing() -> None:
    rates = looked((0, [accepted(1000)]), (10, [accepted(7)]), (20, [accepted(8)]))
    assert rates.grown(ACCEPTED) == 8


def test_after_a_restart_no_counter_is_taken_for_what_it_was_before() -> None:
    before: dict[Series, float] = {("x",): 5.0, ("y",): 1.0}
    # The second one is larger by now, and grew by all that it is.
    assert growth(before, {("x",): 2.0, ("y",): 9.0}) == {("x",): 2.0, ("y",): 9.0}
    assert growth(before, {("y",): 9.0}) == {("y",): 9.0}


def test_a_process_that_joins_brings_nothing_of_its_past() -> None:
    rates = looked(
        (0, [accepted(10)]), (10, [accepted(20), accepted(9000, "b")]), (20, [accepted(30), accepted(9005, "b")])
    )
    assert rates.grown(ACCEPTED) == 25


def test_a_process_that_was_silent_for_a_moment_counts_what_it_took_meanwhile() -> None:
    rates = looked((0, [accepted(10)]), (10, [silent("a")]), (20, [accepted(30)]))
    assert rates.grown(ACCEPTED) == 20
    assert rates.per_minute(ACCEPTED) == pytest.approx(60)


def test_of_a_time_when_nobody_looked_nothing_is_said() -> None:
    rates = looked((0, [accepted(10)]), (10, [accepted(20)]), (1000, [accepted(90_000)]), (1010, [accepted(90_010)]))
    assert rates.per_minute(ACCEPTED) == pytest.approx(60)
    assert rates.grown(ACCEPTED) == 10
    assert rates.covered_s == 10


def test_what_is_older_than_ten_minutes_is_forgotten() -> None:
    rates = looked(*((at_s, [accepted(at_s)]) for at_s in range(0, 2000, 10)))
    assert rates.grown(ACCEPTED) <= KEPT_S + 10
    assert rates.covered_s <= KEPT_S + 10
    minutes = rates.minutes(ACCEPTED, at_s=1990)
    assert [round(one or 0) for one in minutes] == [60] * 10


def test_a_minute_of_which_nothing_is_known_is_none() -> None:
    rates = looked((0, [accepted(0)]), (10, [accepted(5)]), (20, [accepted(10)]))
    minutes = rates.minutes(ACCEPTED, at_s=20)
    assert minutes[:9] == [None] * 9
    assert minutes[9] == pytest.approx(30)


def test_counts_are_told_by_label_the_greatest_first() -> None:
    name = "tiw_callbacks_refused_total"
    rates = looked(
        (0, [told({name: {"expired": 1, "wrong_sign": 1}})]),
        (5, [told({name: {"expired": 2, "wrong_sign": 9, "unknown_app": 0}})]),
    )
    assert rates.grown_by(name, "reason") == {"wrong_sign": 8, "expired": 1}


def test_quantiles_are_of_what_was_observed_lately_alone() -> None:
    name = "tiw_answer_seconds_bucket"
    old = {"0.001": 0, "0.01": 0, "8.0": 500, "+Inf": 500}
    new = {"0.001": 50, "0.01": 100, "8.0": 600, "+Inf": 600}
    rates = looked((0, [told({name: old})]), (5, [told({name: new})]))
    assert rates.quantile_s(name, 0.5) == pytest.approx(0.001)
    assert rates.quantile_s(name, 0.99) == pytest.approx(0.00982)
    assert looked((0, [told({name: old})]), (5, [told({name: old})])).quantile_s(name, 0.5) is None


def test_quantiles_are_of_one_consumer_if_asked() -> None:
    name = "tiw_lag_seconds_bucket"
    of = {"a/0.1": 0.0, "a/+Inf": 0.0, "b/0.1": 0.0, "b/+Inf": 0.0}
    later = {"a/0.1": 10.0, "a/+Inf": 10.0, "b/0.1": 0.0, "b/+Inf": 3.0}
    rates = looked((0, [told({name: of})]), (5, [told({name: later})]))
    assert rates.quantile_s(name, 1, consumer="a") == pytest.approx(0.1)
    # All of them above the last bound.
    assert rates.quantile_s(name, 0.5, consumer="b") == pytest.approx(0.1)
    assert rates.quantile_s(name, 0.5, consumer="c") is None


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (math.inf, 0.0)], 0.5, None),
        ([(1.0, 0.0), (2.0, 4.0), (math.inf, 4.0)], 0.5, 1.5),
        ([(1.0, 0.0), (math.inf, 4.0)], 0.5, 1.0),
        ([(math.inf, 4.0)], 0.5, None),
        # Processes that were read one after the other: not growing from bound to bound.
        ([(1.0, 3.0), (2.0, 2.0), (math.inf, 4.0)], 0.9, 2.0),
    ],
)
def test_a_quantile_is_estimated_within_its_bounds(
    buckets: list[tuple[float, float]], share: float, expected: float | None
) -> None:
    assert quantile(buckets, share) == expected


def test_what_can_be_no_counter_is_left_out() -> None:
    labels = {"routing_key": "x"}
    values = [math.inf, -1.0, 1e300, 3.0]
    peer = PeerMetrics(
        address="a",
        ok=True,
        samples={ACCEPTED: [*(Sample(labels=labels, value=one) for one in values), Sample(labels={}, value=1.0)]},
    )
    assert counters_of(peer) == {(ACCEPTED, "x"): 3.0}
    gauge = PeerMetrics(
        address="a",
        ok=True,
        samples={"g": [Sample(labels={}, value=value) for value in (math.inf, 1e308, -1e308, 2.0)]},
    )
    assert [*values_of([gauge, silent()], "g")] == [2.0]


def test_no_process_and_no_metric_say_nothing() -> None:
    rates = looked((0, []), (10, []), (20, [silent()]), (30, [told()]), (40, [told()]))
    assert rates.per_minute(ACCEPTED) == 0
    assert Rates().per_minute(ACCEPTED) is None
    assert Rates().quantile_s("tiw_answer_seconds_bucket", 0.5) is None
