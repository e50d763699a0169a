"""What was answered 200 is there: applied, as it came, from the moment of the answer on."""

from chaos.checking.evidence import ACCEPTED, Evidence
from chaos.checking.finding import Finding, found, unchecked
from chaos.evidence.records import Fault, Tried


def judge_applied(evidence: Evidence) -> Finding:
    """I1: it is in the store, or an accounted dead letter of the consumer that would have put it there."""
    violations = [
        f"{event_id} {'still waits' if event_id in evidence.waiting else 'is nowhere'}"
        for event_id in evidence.accepted
        if event_id not in evidence.stored and event_id not in evidence.dead
    ]
    return found(violations, exercised=len(evidence.accepted), otherwise="nothing was answered 200")


def judge_bytes(evidence: Evidence) -> Finding:
    """I3: what is in the store, and what consumers were given, has the bytes that were sent."""
    violations: list[str] = []
    sha256 = {}
    exercised = 0
    for event in evidence.outcome.events:
        sha256[event.event_id] = event.sha256
        if (sent := evidence.genuine.get(event.event_id)) is not None:
            exercised += 1
            if event.digest != sent.digest:
                violations.append(f"{event.event_id} differs in the store")
    violations += [
        f"{effect.event_id} differed when {effect.consumer} got it"
        for effect in evidence.effects
        if sha256.get(effect.event_id, effect.sha256) != effect.sha256
    ]
    return found(violations, exercised=exercised, otherwise="nothing that was sent is in the store")


def judge_durable(evidence: Evidence) -> Finding:
    """I4: no 200 while nothing could keep a callback; and after everything was killed, all that was accepted is there.

    Only such accepted callbacks count as evidence whose effect had not been seen when everything ended, and that were
    not sent again: nothing but a durable copy can have carried them over.
    """
    nothing_durable = [fault for fault in evidence.faults if fault.nothing_durable and fault.ended_us is not None]
    ends = [fault for fault in evidence.faults if fault.ends_everything]
    if not nothing_durable and not ends:
        return unchecked("broker and spool never failed together, nor did everything end at once")
    violations: list[str] = []
    exercised = 0
    for fault in nothing_durable:
        answers = _answers_during(evidence, fault)
        exercised += len(answers)
        violations += [
            f"{tried.event_id} was answered 200 during {fault.kind}" for tried in answers if tried.status == ACCEPTED
        ]
    for fault in ends:
        carried = _carried_over(evidence, fault)
        exercised += len(carried)
        violations += [
            f"{event_id}, answered 200 before {fault.kind}, is gone"
            for event_id in carried
            if event_id not in evidence.stored and event_id not in evidence.dead
        ]
    return found(
        violations, exercised=exercised, otherwise="no callback was answered while it could have been kept nowhere else"
    )


def _answers_during(evidence: Evidence, fault: Fault) -> list[Tried]:
    return [
        tried
        for tried in evidence.tries
        if tried.status != 0 and tried.began_us >= fault.began_us and tried.ended_us <= (fault.ended_us or 0)
    ]


def _carried_over(evidence: Evidence, fault: Fault) -> list[str]:
    """Return what was accepted before everything ended, was not sent after it, and had no effect before it."""
    carried = []
    for event_id, tried in evidence.accepted.items():
        if tried.ended_us > fault.began_us or evidence.tries_by_id[event_id][-1].began_us > fault.began_us:
            continue
        effects = evidence.effects_by_id.get(event_id)
        if not effects or effects[0].began_us >= fault.began_us:
            carried.append(event_id)
    return carried
