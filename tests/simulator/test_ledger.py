from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ClassKind, Outcome, Send, play_class
from simulator.simulation import Ledger, percentile

FIRST, SECOND, _ = play_class(ClassKind.NORMAL, Random(1), sdk_app_id=1, room_id=1)
ACCEPTED = Outcome(accepted=True, retries=1, failures=("HTTP 503",), answer_ms=12.5)
GIVEN_UP = Outcome(accepted=False, retries=5, failures=("time-out",) * 6)


def test_callbacks_are_counted_once_however_often_they_are_sent() -> None:
    ledger = Ledger(classes=1)
    for copy in (0, 1):
        send = Send(callback=FIRST, copy=copy, ends_class=copy == 1)
        ledger.begin(send)
        ledger.settle(send, ACCEPTED)

    report = ledger.report(elapsed_s=1.0)
    assert (report.sent, report.accepted, report.gave_up) == (1, 1, 0)
    assert report.duplicates == 1
    assert report.retries == 2
    assert report.failures == {"HTTP 503": 2}
    assert report.accepted_ids == {FIRST.event_id}
    assert ledger.progress().classes_done == 1


@pytest.mark.parametrize("outcomes", [(ACCEPTED, GIVEN_UP), (GIVEN_UP, ACCEPTED)])
def test_one_accepted_send_is_enough(outcomes: tuple[Outcome, Outcome]) -> None:
    ledger = Ledger(classes=1)
    for copy, outcome in enumerate(outcomes):
        send = Send(callback=FIRST, copy=copy, ends_class=False)
        ledger.begin(send)
        ledger.settle(send, outcome)

    report = ledger.report(elapsed_s=1.0)
    assert (report.sent, report.accepted, report.gave_up) == (1, 1, 0)
    assert report.given_up_ids == frozenset()


def test_what_is_given_up_is_named() -> None:
    ledger = Ledger(classes=1)
    for callback, outcome in ((FIRST, ACCEPTED), (SECOND, GIVEN_UP)):
        send = Send(callback=callback, copy=0, ends_class=False)
        ledger.begin(send)
        ledger.settle(send, outcome)

    report = ledger.report(elapsed_s=1.0)
    assert report.given_up_ids == {SECOND.event_id}
    assert (report.sent, report.accepted, report.gave_up) == (2, 1, 1)


@given(st.lists(st.floats(0, 10_000), min_size=1), st.integers(1, 100))
def test_a_percentile_has_its_share_at_or_below(values: list[float], percent: int) -> None:
    values = sorted(round(value, 3) for value in values)

    reached = percentile(values, percent)

    assert reached in values
    assert sum(value <= reached for value in values) * 100 >= percent * len(values)
    assert sum(value < reached for value in values) * 100 < percent * len(values)


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 50) is None
