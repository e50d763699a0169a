import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import DEFAULT_RETRY_DELAYS_S, LEASE_WAIT_S, delay_for_retry, delay_not_longer, delay_not_shorter

_ladders = st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=8, unique=True).map(sorted)


def test_retries_climb_the_ladder_and_stay_at_the_top() -> None:
    waits = [delay_for_retry(DEFAULT_RETRY_DELAYS_S, retry) for retry in range(1, 9)]
    assert waits == [1, 5, 30, 120, 600, 3600, 3600, 3600]


@pytest.mark.parametrize(("after_s", "chosen_s"), [(0, 1), (1, 1), (1.1, 5), (120, 120), (121, 600), (99_999, 3600)])
def test_a_wish_is_met_by_the_next_longer_delay(after_s: float, chosen_s: float) -> None:
    assert delay_not_shorter(DEFAULT_RETRY_DELAYS_S, after_s) == chosen_s


@given(delays_s=_ladders, after_s=st.floats(min_value=0, max_value=2e6))
def test_a_chosen_delay_is_one_of_the_ladder_and_no_shorter_one_would_do(delays_s: list[float], after_s: float) -> None:
    chosen_s = delay_not_shorter(delays_s, after_s)
    assert chosen_s in delays_s
    assert chosen_s >= after_s or chosen_s == max(delays_s)
    assert not any(after_s <= delay_s < chosen_s for delay_s in delays_s)


@given(delays_s=_ladders, than_s=st.floats(min_value=0, max_value=2e6))
def test_the_longest_delay_that_fits_is_chosen_or_the_shortest_of_all(delays_s: list[float], than_s: float) -> None:
    chosen_s = delay_not_longer(delays_s, than_s)
    assert chosen_s in delays_s
    assert chosen_s <= than_s or chosen_s == min(delays_s)
    assert not any(chosen_s < delay_s <= than_s for delay_s in delays_s)


@given(delays_s=_ladders, retry=st.integers(min_value=1, max_value=10_000))
def test_a_later_retry_never_waits_shorter(delays_s: list[float], retry: int) -> None:
    assert delay_for_retry(delays_s, retry) <= delay_for_retry(delays_s, retry + 1)


def test_a_lease_is_waited_for_on_a_delay_of_the_default_ladder() -> None:
    assert LEASE_WAIT_S in DEFAULT_RETRY_DELAYS_S
