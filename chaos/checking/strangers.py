"""What nobody accepted, and what nobody may read."""

from chaos.checking.evidence import ACCEPTED, Evidence
from chaos.checking.finding import Finding, found


def judge_not_accepted(evidence: Evidence) -> Finding:
    """I8: no forged callback was answered 200 or is anywhere; nor is anything that was never sent."""
    forged = {event_id: one.forged for event_id, one in evidence.sent.items() if one.forged}
    places = {
        "the store": evidence.stored,
        "a queue or spool": evidence.waiting,
        "the dead letters": {one.event_id for one in evidence.outcome.dead_letters},
        "the effects": {effect.event_id for effect in evidence.effects},
    }
    violations = [
        f"{event_id} ({forged.get(event_id, 'never sent')}) is in {place}"
        for place, ids in places.items()
        for event_id in ids - evidence.genuine.keys()
    ]
    answered = [tried for tried in evidence.tries if tried.event_id in forged and tried.status != 0]
    violations += [
        f"{tried.event_id} ({forged[tried.event_id]}) was answered 200"
        for tried in answered
        if tried.status == ACCEPTED
    ]
    return found(violations, exercised=len(answered), otherwise="no forged callback was answered")


def judge_secrets(evidence: Evidence) -> Finding:
    """I16: no Sign and no key is in the store, in spools or in logs; faults make programs talkative."""
    outcome = evidence.outcome
    return found(outcome.secrets, exercised=len(outcome.searched), otherwise="nothing was searched")
