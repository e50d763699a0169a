"""Evidence from a time when a wall clock was wrong."""

from typing import Any

from chaos.checking.checker import judge_remembered, judge_statuses
from chaos.checking.evidence import Judgement
from tests.chaos.forged_evidence import completed, effect, evidence, fault, sent, tried

STEP = fault("clock an hour back", "workers", from_s=100.0, to_s=105.0, steps_clock=True)


def test_an_expired_signature_is_no_violation_while_a_clock_is_ahead_and_is_one_otherwise() -> None:
    during = evidence(sent=[sent("a")], tries=[tried("a", 401, at_s=102.0)], faults=[STEP])
    after = evidence(sent=[sent("a")], tries=[tried("a", 401, at_s=106.0)], faults=[STEP])
    assert judge_statuses(during).judgement is Judgement.SATISFIED
    assert judge_statuses(after).judgement is Judgement.VIOLATED


def test_another_status_is_a_violation_whatever_the_clock_says() -> None:
    during = evidence(sent=[sent("a")], tries=[tried("a", 500, at_s=102.0)], faults=[STEP])
    assert judge_statuses(during).judgement is Judgement.VIOLATED


def test_times_around_a_step_are_not_compared_and_others_are() -> None:
    accepted: dict[str, Any] = {"sent": [sent("a")], "tries": [tried("a"), tried("a", attempt=0)], "faults": [STEP]}
    remembered = (completed("a", at_s=1.0),)
    around = evidence(**accepted, effects=[effect("a", at_s=99.0)], completions=remembered)
    long_after = evidence(**accepted, effects=[effect("a", at_s=200.0)], completions=remembered)
    assert judge_remembered(around).judgement is Judgement.SATISFIED
    assert judge_remembered(long_after).judgement is Judgement.VIOLATED
