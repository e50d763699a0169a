"""Medians, percentiles, and whose turn it is."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import percentile, rotated, summarize


def test_a_summary_holds_the_median_and_the_extremes() -> None:
    summary = summarize([5.0, 1.0, 100.0])
    assert summary is not None
    assert (summary.median, summary.low, summary.high, summary.rounds) == (5.0, 1.0, 100.0, 3)


def test_nothing_has_no_summary() -> None:
    assert summarize([]) is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values)
    assert sum(value < found for value in values) < percent / 100 * len(values)


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True))
def test_every_contender_is_first_once_in_as_many_rounds_as_there_are_contenders(contenders: list[int]) -> None:
    rounds = [rotated(contenders, number) for number in range(len(contenders))]
    assert [sorted(order) for order in rounds] == [sorted(contenders)] * len(rounds)
    for place in range(len(contenders)):
        assert Counter(order[place] for order in rounds) == Counter(contenders)
