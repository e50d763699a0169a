"""What the sender sees: which answers, and when."""

from chaos.checking.evidence import ACCEPTED, Evidence
from chaos.checking.finding import Finding, found, unchecked
from chaos.evidence.records import Fault, Tried

#: Every answer leaves within 8 s; the rest is the way to a sender that shares two cores with everything else.
DEADLINE_US = 8_000_000
_ON_THE_WAY_US = 500_000

#: A genuine callback is answered one of these (408: its body came too slowly); a forged one is never accepted.
GENUINE = frozenset({200, 408, 503})
FORGED = frozenset({400, 401, 408, 503})
EXPIRED = 401


def judge_deadline(evidence: Evidence) -> Finding:
    """I5: every answer came within 8 s, and there was one, unless the process that owed it stood still itself."""
    excuses = [fault for fault in evidence.faults if fault.excuses_deadline]
    # A sender that stood still itself runs out of patience early: that says nothing of the answer.
    judged = [
        tried
        for tried in evidence.tries
        if tried.status != 0 or (tried.failure == "time-out" and _took_us(tried) > DEADLINE_US)
    ]
    owed = [tried for tried in judged if not any(_overlaps(fault, tried) for fault in excuses)]
    violations = [
        f"{tried.event_id} {_was(tried)} after {_took_us(tried) / 1e6:.1f} s"
        for tried in owed
        if tried.status == 0 or _took_us(tried) > DEADLINE_US + _ON_THE_WAY_US
    ]
    return found(violations, exercised=len(owed), otherwise="there was no answer that a deadline held for")


def judge_statuses(evidence: Evidence) -> Finding:
    """I9: every answer is one of the documented statuses for such a callback.

    By a clock that is ahead a signature has expired: 401 is the documented answer, and the sender tries again.
    """
    stepped = [fault for fault in evidence.faults if fault.steps_clock]
    answered = [tried for tried in evidence.tries if tried.status != 0]
    violations = [
        f"{tried.event_id} was answered {tried.status}"
        for tried in answered
        if tried.status not in (GENUINE if tried.event_id in evidence.genuine else FORGED)
        if not (tried.status == EXPIRED and any(_overlaps(fault, tried) for fault in stepped))
    ]
    return found(violations, exercised=len(answered), otherwise="there was no answer")


def judge_given_up(evidence: Evidence) -> Finding:
    """I14: the sender gave nothing up: each callback was accepted within its six tries."""
    if evidence.terms.may_give_up is not None:
        return unchecked(evidence.terms.may_give_up)
    retried = sum(
        any(tried.status != ACCEPTED for tried in evidence.tries_by_id[event_id]) for event_id in evidence.genuine
    )
    violations = [f"{one.event_id} was given up" for one in evidence.gave_up]
    return found(violations, exercised=retried, otherwise="every callback was accepted at its first try")


def worst_answer_s(evidence: Evidence) -> float | None:
    """Return the longest that an answer took, in seconds; None if there was none."""
    return max((_took_us(tried) / 1e6 for tried in evidence.tries if tried.status != 0), default=None)


def _overlaps(fault: Fault, tried: Tried) -> bool:
    return tried.began_us <= (fault.ended_us or tried.ended_us) and fault.began_us <= tried.ended_us


def _took_us(tried: Tried) -> int:
    return tried.ended_us - tried.began_us - tried.stalled_us


def _was(tried: Tried) -> str:
    return f"was answered {tried.status}" if tried.status else "had no answer"
