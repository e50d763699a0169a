"""What came out of a round of a scenario: a line of the matrix, and the findings behind it."""

from msgspec import Struct

from chaos.checking.answers import worst_answer_s
from chaos.checking.evidence import Evidence
from chaos.checking.finding import Finding, Judgement
from chaos.checking.invariants import INVARIANTS
from chaos.checking.once import repeated_effects
from chaos.checking.recovery import drained_after_s, recoveries
from chaos.evidence.records import Measured


class Numbers(Struct, frozen=True, kw_only=True):
    """The accounting. Counts are of distinct callbacks, times in seconds.

    `lost`: answered 200 and found nowhere. `applied_twice`: violations of I2 and I7. `unaccounted`: answered 200 and
    still on the way at the end, and dead letters without an account. `gave_up`: not accepted in all the sender's tries.
    `recovered_after_s` and `drained_after_s`: the worst of all faults: until things moved again, and until what was
    accepted during the fault had its effects. `repeated_effects`: outside the store, before they were remembered:
    allowed, and counted.
    """

    faults: int
    sent: int
    accepted: int
    gave_up: int
    lost: int
    applied_twice: int
    unaccounted: int
    repeated_effects: int
    dead_letters: int
    worst_answer_s: float | None
    recovered_after_s: float | None
    drained_after_s: float | None
    settled_after_s: float | None


class Result(Struct, frozen=True, kw_only=True):
    """One round. `problem` says why it could not be played to its end; there are no numbers then.

    `cannot_run` is why this machine cannot run it at all. `code` names the code that was run. `measures` are what the
    scenario measured beside the ledger.
    """

    scenario: str
    seed: int
    is_full: bool
    code: str
    finished_at: str
    took_s: float
    numbers: Numbers | None = None
    findings: dict[str, Finding] = {}
    measures: tuple[Measured, ...] = ()
    problem: str = ""
    cannot_run: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it was played to its end and nothing is violated."""
        return self.numbers is not None and all(
            finding.judgement is not Judgement.VIOLATED for finding in self.findings.values()
        )


def judge(evidence: Evidence) -> dict[str, Finding]:
    """Judge every invariant, by its number."""
    return {invariant.number: invariant.judge(evidence) for invariant in INVARIANTS}


def count(evidence: Evidence, findings: dict[str, Finding]) -> Numbers:
    """Do the accounting."""
    missing = [
        event_id for event_id in evidence.accepted if event_id not in evidence.stored and event_id not in evidence.dead
    ]
    # Of a place with many only some were read: what is not read there is not lost.
    unread = sum(place.count - len(place.event_ids) for place in evidence.outcome.waiting)
    lost = max(0, sum(event_id not in evidence.waiting for event_id in missing) - unread)
    moved = [recovery.after_s for recovery in recoveries(evidence) if recovery.after_s is not None]
    drained = [drained_after_s(evidence, fault) for fault in evidence.faults if not fault.of_consumer]
    return Numbers(
        faults=len(evidence.faults),
        sent=len(evidence.genuine),
        accepted=len(evidence.accepted),
        gave_up=len(evidence.gave_up),
        lost=lost,
        applied_twice=findings["I2"].violations + findings["I7"].violations,
        unaccounted=len(missing) - lost + findings["I6"].violations,
        repeated_effects=repeated_effects(evidence),
        dead_letters=len(evidence.outcome.dead_letters),
        worst_answer_s=worst_answer_s(evidence),
        recovered_after_s=max(moved, default=None),
        drained_after_s=max((after_s for after_s in drained if after_s is not None), default=None),
        settled_after_s=evidence.outcome.settled_after_s,
    )
