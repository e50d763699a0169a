"""Once: in the store, and in what a consumer does after its success was remembered."""

from collections import Counter

from chaos.checking.evidence import ACCEPTED, Evidence
from chaos.checking.finding import Finding, found

#: So long before and after a step of the wall clock its times say nothing.
STEP_US = 10_000_000


def judge_applied_once(evidence: Evidence) -> Finding:
    """I2: one row per event, and each recording is what its events add up to, whatever order they came in.

    Without a callback that came in more than once nothing could have been applied twice.
    """
    rows = Counter(event.event_id for event in evidence.outcome.events)
    violations = [f"{event_id} has {count} rows" for event_id, count in rows.items() if count > 1]
    violations += [f"recording {text}" for text in evidence.outcome.differing]
    exercised = sum(len(evidence.tries_by_id[event_id]) > 1 for event_id in evidence.accepted if event_id in rows)
    return found(violations, exercised=exercised, otherwise="no callback that was applied came in more than once")


def judge_remembered(evidence: Evidence) -> Finding:
    """I7: no handler was called after its success with the same event was remembered.

    A handler that was called twice before that is no violation: its effect is outside the store, at least once. Around
    a step of the wall clock the two times cannot be compared.
    """
    steps_us = [at_us for fault in evidence.faults if fault.steps_clock for at_us in (fault.began_us, fault.ended_us)]
    remembered = {(one.consumer, one.event_id): one.completed_at_wall_us for one in evidence.outcome.completions}
    calls = [(effect, remembered.get((effect.consumer, effect.event_id))) for effect in evidence.effects]
    violations = [
        f"{effect.consumer} was called again with {effect.event_id}, {(effect.began_wall_us - at_us) / 1e6:.3f} s after"
        for effect, at_us in calls
        if at_us is not None and effect.began_wall_us > at_us
        if not any(step_us is None or abs(effect.began_us - step_us) < STEP_US for step_us in steps_us)
    ]
    repeated = {event_id for event_id in evidence.accepted if _accepted_times(evidence, event_id) > 1}
    exercised = sum(event_id in repeated for _, event_id in remembered)
    return found(
        violations, exercised=exercised, otherwise="no event was delivered again after its success was remembered"
    )


def repeated_effects(evidence: Evidence) -> int:
    """Count the effects outside the store that were repeated because a crash came before they were remembered."""
    calls = Counter((effect.consumer, effect.event_id) for effect in evidence.effects)
    return sum(count - 1 for count in calls.values())


def _accepted_times(evidence: Evidence, event_id: str) -> int:
    return sum(tried.status == ACCEPTED for tried in evidence.tries_by_id[event_id])
