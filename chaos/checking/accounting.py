"""Where everything ends: dead letters with their reasons, every consumer with every event, and nothing left behind."""

from chaos.checking.evidence import Evidence
from chaos.checking.finding import Finding, found, unchecked


def judge_dead_letters(evidence: Evidence) -> Finding:
    """I6: each dead letter is in the store, with reason, attempts and times, and of an event that was accepted.

    A consumer that was meant to fail has none of its events anywhere else.
    """
    letters = evidence.outcome.dead_letters
    violations = [
        f"{one.event_id} of {one.consumer} has no complete account"
        for one in letters
        if not one.reason or one.attempts < 1 or not 0 < one.first_failed_at_us <= one.last_failed_at_us
    ]
    violations += [
        f"{one.event_id} of {one.consumer} is a dead letter, but was never sent"
        for one in letters
        if one.event_id not in evidence.genuine
    ]
    violations += [
        f"{place.count} dead letters never reached the store from {place.place}"
        for place in evidence.outcome.waiting
        if place.place.endswith((".dead", "tiw.orphaned"))
    ]
    for consumer in evidence.terms.meant_to_fail:
        completed = {one.event_id for one in evidence.outcome.completions if one.consumer == consumer}
        violations += [
            f"{one.event_id} of {consumer} is both a dead letter and a success"
            for one in letters
            if one.consumer == consumer and one.event_id in completed
        ]
    return found(violations, exercised=len(letters), otherwise="there was no dead letter")


def judge_each_consumer(evidence: Evidence) -> Finding:
    """I13: every accepted event had its effect with the consumer that takes all, or is its dead letter."""
    if "effects" not in evidence.terms.consumers:
        return unchecked("no consumer ran that takes everything")
    ended = {effect.event_id for effect in evidence.effects if effect.consumer == "effects"}
    ended |= {one.event_id for one in evidence.outcome.dead_letters if one.consumer == "effects"}
    violations = [f"{event_id} never reached the consumer" for event_id in evidence.accepted if event_id not in ended]
    return found(violations, exercised=len(evidence.accepted), otherwise="nothing was answered 200")


def judge_nothing_left(evidence: Evidence) -> Finding:
    """I10: queues, spools and retry queues are empty at the end."""
    violations = [f"{place.count} in {place.place}" for place in evidence.outcome.waiting]
    if not violations and evidence.outcome.not_looked:
        return unchecked("; ".join(evidence.outcome.not_looked))
    return found(violations, exercised=len(evidence.outcome.places), otherwise="no queue or spool was looked into")
