"""The promises as numbered invariants, and what decides each from the evidence alone."""

from bisect import bisect_left
from collections import Counter

from msgspec import Struct

from chaos.checking.evidence import ACCEPTED, Evidence, Finding, Invariant, found, unchecked
from chaos.evidence import Fault, StoredDeadLetter, Tried

#: Every answer leaves within 8 s.
DEADLINE_US = 8_000_000

#: A genuine callback is answered one of these (408: its body came too slowly); a forged one is never accepted.
GENUINE = frozenset({200, 408, 503})
FORGED = frozenset({400, 401, 408, 503})
EXPIRED = 401


def judge_deadline(evidence: Evidence) -> Finding:
    """I5: every answer came within 8 s, and there was one, unless the process that owed it stood still itself."""
    excuses = [fault for fault in evidence.faults if fault.excuses_deadline]
    longest_us = DEADLINE_US + round(evidence.terms.on_the_way_s * 1e6)
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
        if tried.status == 0 or _took_us(tried) > longest_us
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

    A handler that was called twice before that is no violation: its effect is outside the store, at least once. But it
    takes a fault to call it twice. Around a step of the wall clock the two times cannot be compared.
    """
    steps_us = [at_us for fault in evidence.faults if fault.steps_clock for at_us in (fault.began_us, fault.ended_us)]
    remembered = {(one.consumer, one.event_id): one.completed_at_wall_us for one in evidence.outcome.completions}
    calls = [(effect, remembered.get((effect.consumer, effect.event_id))) for effect in evidence.effects]
    after_success = [
        f"{effect.consumer} was called again with {effect.event_id}, {(effect.began_wall_us - at_us) / 1e6:.3f} s after"
        for effect, at_us in calls
        if at_us is not None and effect.began_wall_us > at_us
        if not any(step_us is None or abs(effect.began_us - step_us) < STEP_US for step_us in steps_us)
    ]
    violations = after_success or _unexplained_calls(evidence)
    repeated = {event_id for event_id in evidence.accepted if _accepted_times(evidence, event_id) > 1}
    exercised = sum(event_id in repeated for _, event_id in remembered)
    return found(
        violations, exercised=exercised, otherwise="no event was delivered again after its success was remembered"
    )


def _unexplained_calls(evidence: Evidence) -> list[str]:
    repeats = [fault.repeats for fault in evidence.faults]
    if None in repeats:
        return []
    most = 1 + sum(number for number in repeats if number)
    times = Counter((effect.consumer, effect.event_id) for effect in evidence.effects)
    return [
        f"{consumer} was called {count} times with {event_id}, and faults explain {most}"
        for (consumer, event_id), count in times.items()
        if count > most
    ]


def repeated_effects(evidence: Evidence) -> int:
    """Count the effects outside the store that were repeated because a crash came before they were remembered."""
    calls = Counter((effect.consumer, effect.event_id) for effect in evidence.effects)
    return sum(count - 1 for count in calls.values())


def _accepted_times(evidence: Evidence, event_id: str) -> int:
    return sum(tried.status == ACCEPTED for tried in evidence.tries_by_id[event_id])


def judge_dead_letters(evidence: Evidence) -> Finding:
    """I6: each dead letter is in the store, with reason, attempts and times, and of an event that was accepted.

    A consumer that was meant to fail has none of its events anywhere else. Where the terms say who gives up when, there
    are no other dead letters, but for crashes of workers.
    """
    letters = evidence.outcome.dead_letters
    violations = [
        f"{one.event_id} of {one.consumer} has no complete account"
        for one in letters
        if not one.reason
        or one.attempts < 1
        or min(one.first_failed_at_us, one.last_failed_at_us) <= 0
        or (one.first_failed_at_us > one.last_failed_at_us and not any(fault.steps_clock for fault in evidence.faults))
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
    violations += [text for one in letters if (text := _given_up_early(evidence, one))]
    for consumer in evidence.terms.meant_to_fail:
        completed = {one.event_id for one in evidence.outcome.completions if one.consumer == consumer}
        violations += [
            f"{one.event_id} of {consumer} is both a dead letter and a success"
            for one in letters
            if one.consumer == consumer and one.event_id in completed
        ]
    return found(violations, exercised=len(letters), otherwise="there was no dead letter")


def _given_up_early(evidence: Evidence, letter: StoredDeadLetter) -> str | None:
    terms = evidence.terms
    if terms.gives_up is None or letter.reason in terms.gives_up_at_once_with:
        return None
    name = f"{letter.event_id} of {letter.consumer}"
    if letter.reason == CRASHED:
        return None if evidence.faults else f"{name} is a dead letter of a crash, and no worker crashed"
    if letter.consumer not in terms.gives_up:
        return f"{name}, which gives nothing up, is a dead letter: {letter.reason}"
    if letter.attempts < terms.gives_up[letter.consumer]:
        return f"{name} is a dead letter after {letter.attempts} attempts: {letter.reason}"
    return None


def judge_each_consumer(evidence: Evidence) -> Finding:
    """I13: every accepted event had its effect with each consumer that takes such events, or is its dead letter."""
    if not evidence.terms.takes:
        return unchecked("no consumer ran that must get something")
    ended = {(effect.consumer, effect.event_id) for effect in evidence.effects}
    ended |= {(one.consumer, one.event_id) for one in evidence.open_letters}
    owed = [
        (consumer, event_id)
        for consumer, event_types in evidence.terms.takes.items()
        for event_id in evidence.accepted
        if not event_types or evidence.genuine[event_id].event_type in event_types
    ]
    violations = [
        f"{event_id} never reached {consumer}" for consumer, event_id in owed if (consumer, event_id) not in ended
    ]
    return found(violations, exercised=len(owed), otherwise="nothing was answered 200 that a consumer must get")


def judge_nothing_left(evidence: Evidence) -> Finding:
    """I10: queues, spools and retry queues are empty at the end."""
    violations = [f"{place.count} in {place.place}" for place in evidence.outcome.waiting]
    if not violations and evidence.outcome.not_looked:
        return unchecked("; ".join(evidence.outcome.not_looked))
    return found(violations, exercised=len(evidence.outcome.places), otherwise="no queue or spool was looked into")


#: The reason of what was given up because the worker that had it died again and again.
CRASHED = "worker crashed"

#: While one consumer fails, another's effects come within this time of the acceptance.
ISOLATION_US = 10_000_000


def drained_after_s(evidence: Evidence, fault: Fault) -> float | None:
    """Return how long after a fault's end the last callback that was accepted during it had its first effect.

    0 if all had it before; None if nothing was accepted during it, or something never had an effect.
    """
    ended_us = fault.ended_us or 0
    ids = [event_id for event_id, tried in evidence.accepted.items() if fault.began_us <= tried.ended_us <= ended_us]
    if not ids or any(event_id not in evidence.effects_by_id for event_id in ids):
        return None
    return max(0.0, max(evidence.effects_by_id[event_id][0].began_us - ended_us for event_id in ids) / 1e6)


class Recovery(Struct, frozen=True, kw_only=True):
    """How long after a fault's end the first event that was sent after it had its effect; None: never."""

    fault: Fault
    after_s: float | None


def recoveries(evidence: Evidence) -> list[Recovery]:
    """Return what is known of each fault. One that another fault followed before things moved again tells nothing."""
    # For each event that had an effect: when it was sent, and when the effect came.
    effects = sorted(
        (evidence.genuine[event_id].at_us, calls[0].began_us)
        for event_id, calls in evidence.effects_by_id.items()
        if event_id in evidence.genuine
    )
    sent_us = [at_us for at_us, _ in effects]
    # The earliest effect among this event and all that were sent later.
    earliest = [began_us for _, began_us in effects]
    for index in range(len(earliest) - 2, -1, -1):
        earliest[index] = min(earliest[index], earliest[index + 1])
    last_sent_us = max((one.at_us for one in evidence.genuine.values()), default=0)
    known = []
    for fault in evidence.faults:
        if fault.ended_us is None or fault.of_consumer or last_sent_us < fault.ended_us:
            continue
        index = bisect_left(sent_us, fault.ended_us)
        moved_us = earliest[index] if index < len(earliest) else None
        others = [
            other.began_us for other in evidence.faults if other.number != fault.number and _outlasts(other, fault)
        ]
        if others and (moved_us is None or min(others) < moved_us):
            continue
        after_s = None if moved_us is None else (moved_us - fault.ended_us) / 1e6
        known.append(Recovery(fault=fault, after_s=after_s))
    return known


def judge_recovery(evidence: Evidence) -> Finding:
    """I11: after each fault's end a callback that is sent then is accepted and has its effect, in the given time.

    Where a bound for the backlog is given, too, what was accepted during the fault has had its effects by then.
    """
    if evidence.terms.recovers_within_s is None:
        return unchecked("there is no bound")
    known = recoveries(evidence)
    violations = []
    for recovery in known:
        fault = recovery.fault
        bound_s = evidence.terms.recovers_within_s if fault.recovers_within_s is None else fault.recovers_within_s
        what = f"{fault.kind} of {fault.victim}"
        if recovery.after_s is None:
            violations.append(f"nothing moved again after {what}")
        elif recovery.after_s > bound_s:
            violations.append(f"{recovery.after_s:.1f} s after {what}, {bound_s:g} s are allowed")
    for fault in evidence.faults:
        if fault.drains_within_s is None:
            continue
        drained_s = drained_after_s(evidence, fault)
        if drained_s is None or drained_s > fault.drains_within_s:
            after = "was never drained" if drained_s is None else f"was drained after {drained_s:.1f} s"
            violations.append(f"the backlog of {fault.kind} {after}, {fault.drains_within_s:g} s are allowed")
    return found(violations, exercised=len(known), otherwise="nothing was sent after a fault had ended")


def judge_isolation(evidence: Evidence) -> Finding:
    """I12: while one consumer fails, hangs, blocks or dies, another's effects come as ever."""
    windows = [fault for fault in evidence.faults if fault.of_consumer and fault.ended_us is not None]
    violations: list[str] = []
    exercised = 0
    for fault in windows:
        for event_id, tried in evidence.accepted.items():
            if not fault.began_us <= tried.ended_us <= (fault.ended_us or 0):
                continue
            calls = [
                effect for effect in evidence.effects_by_id.get(event_id, ()) if effect.consumer != fault.of_consumer
            ]
            exercised += 1
            if not calls or calls[0].began_us - tried.ended_us > ISOLATION_US:
                violations.append(f"{event_id} waited while {fault.of_consumer} was in trouble ({fault.kind})")
    return found(violations, exercised=exercised, otherwise="no consumer was in trouble alone")


def _outlasts(other: Fault, fault: Fault) -> bool:
    """Say whether another fault was there when, or came after, this one ended."""
    return other.ended_us is None or other.ended_us > (fault.ended_us or 0)


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


def judge_bounds(evidence: Evidence) -> Finding:
    """I15: each quantity that was measured is within its bound."""
    violations = [
        f"{one.what}: {one.value:.3g} {one.unit}, {one.at_most:g} are allowed"
        for one in evidence.measures
        if not one.value <= one.at_most
    ]
    return found(violations, exercised=len(evidence.measures), otherwise="nothing was measured beside the ledger")


INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        number="I1",
        sentence="What was answered 200 is in the store, or an accounted dead letter.",
        judge=judge_applied,
    ),
    Invariant(
        number="I2",
        sentence="It is applied once: one row per event, and every recording is what its events add up to.",
        judge=judge_applied_once,
    ),
    Invariant(
        number="I3",
        sentence="It is applied, and given to consumers, with exactly the bytes that came.",
        judge=judge_bytes,
    ),
    Invariant(
        number="I4",
        sentence="Nothing is answered 200 without a durable copy.",
        judge=judge_durable,
    ),
    Invariant(
        number="I5",
        sentence="Every answer leaves within 8 s; none comes after its deadline.",
        judge=judge_deadline,
    ),
    Invariant(
        number="I6",
        sentence="Every dead letter is accounted for: in the store, with reason, attempts and times.",
        judge=judge_dead_letters,
    ),
    Invariant(
        number="I7",
        sentence="A redelivery runs no effect twice: after a success was remembered, no handler is called again.",
        judge=judge_remembered,
    ),
    Invariant(
        number="I8",
        sentence="What nobody accepted is not applied, nor anywhere else.",
        judge=judge_not_accepted,
    ),
    Invariant(
        number="I9",
        sentence="Every answer is one of the documented statuses.",
        judge=judge_statuses,
    ),
    Invariant(
        number="I10",
        sentence="Nothing is left behind: queues, spools and retry queues are empty at the end.",
        judge=judge_nothing_left,
    ),
    Invariant(
        number="I11",
        sentence="After a fault's end things move again within the scenario's bound.",
        judge=judge_recovery,
    ),
    Invariant(
        number="I12",
        sentence="One consumer's trouble delays no other.",
        judge=judge_isolation,
    ),
    Invariant(
        number="I13",
        sentence="Every consumer gets every event that it asked for.",
        judge=judge_each_consumer,
    ),
    Invariant(
        number="I14",
        sentence="The sender, as patient as the vendor's, gives nothing up.",
        judge=judge_given_up,
    ),
    Invariant(
        number="I15",
        sentence="What a scenario measures beside the ledger stays within its bound.",
        judge=judge_bounds,
    ),
    Invariant(
        number="I16",
        sentence="No Sign and no key is in the store, in spools or in logs.",
        judge=judge_secrets,
    ),
)


def judge(evidence: Evidence) -> dict[str, Finding]:
    """Judge every invariant, by its number."""
    return {invariant.number: invariant.judge(evidence) for invariant in INVARIANTS}
