"""How soon things move again, and whether one consumer's trouble stays its own."""

from bisect import bisect_left

from msgspec import Struct

from chaos.checking.evidence import Evidence
from chaos.checking.finding import Finding, found
from chaos.evidence.records import Fault

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
