"""The fault matrix: a line for each scenario, its rounds taken together."""

from collections.abc import Sequence
from typing import TextIO

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from chaos.checking.checker import INVARIANTS, drained_after_s, recoveries, repeated_effects, worst_answer_s
from chaos.checking.evidence import Evidence, Finding, Judgement
from chaos.evidence import Measured


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


#: Where output goes to a file or a pipe, lines are not cut to the width of a terminal that is not there.
_WIDE = 220

_TITLES = (
    "scenario", "rounds", "faults", "sent", "accepted", "gave up", "lost", "applied twice", "unaccounted",
    "worst answer s", "recovered s", "drained s", "held", "violated", "unchecked",
)  # fmt: skip


class Line(Struct, frozen=True, kw_only=True):
    """A scenario's line. Invariants are named by their numbers; `reasons` say more of violated and unchecked ones."""

    scenario: str
    cells: tuple[str, ...]
    is_good: bool
    reasons: tuple[str, ...]


def lines(results: Sequence[Result]) -> list[Line]:
    """Return the lines, in the order in which scenarios come first."""
    names = dict.fromkeys(result.scenario for result in results)
    return [_line(name, [result for result in results if result.scenario == name]) for name in names]


def print_matrix(results: Sequence[Result], file: TextIO, *, verbose: bool) -> None:
    """Print the matrix for a person, with what is violated.

    `verbose`: also why something is unchecked, and what was measured beside the ledger.
    """
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=_WIDE)
    table = Table(title="fault matrix", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, title in enumerate(_TITLES):
        table.add_column(title, justify="right" if 0 < number < len(_TITLES) - 3 else "left")
    for line in lines(results):
        table.add_row(*line.cells, style=None if line.is_good else "bold red")
    console.print(table)
    for line in lines(results):
        for reason in line.reasons:
            if verbose or not reason.startswith(("unchecked", "measured")):
                console.print(f"{line.scenario}: {reason}", markup=False, soft_wrap=True)


def markdown(results: Sequence[Result]) -> str:
    """Return the matrix and the invariants for the documentation."""
    rows = [_TITLES, tuple("---" for _ in _TITLES), *(line.cells for line in lines(results))]
    matrix = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    invariants = "\n".join(f"| {one.number} | {one.sentence} |" for one in INVARIANTS)
    finished = sorted(result.finished_at for result in results) or ["never"]
    codes = ", ".join(sorted({result.code for result in results}))
    dates = f"{len(results)} rounds, finished between {finished[0]} and {finished[-1]}; digest of the code: {codes}."
    return f"{matrix}\n\n{dates}\n\n| invariant | |\n| --- | --- |\n{invariants}\n"


def _line(name: str, results: Sequence[Result]) -> Line:
    played = [result.numbers for result in results if result.numbers is not None]
    reasons = [f"cannot run: {result.cannot_run}" for result in results if result.cannot_run]
    reasons += [f"not played to its end (seed {result.seed}): {result.problem}" for result in results if result.problem]
    held, violated, unchecked = [], [], []
    for invariant in INVARIANTS:
        findings = [
            (result.seed, result.findings[invariant.number])
            for result in results
            if invariant.number in result.findings
        ]
        judgements = {finding.judgement for _, finding in findings}
        if Judgement.VIOLATED in judgements:
            violated.append(invariant.number)
            reasons += [
                f"violated {invariant.number} (seed {seed}, {finding.violations} times): {finding.text}"
                for seed, finding in findings
                if finding.judgement is Judgement.VIOLATED
            ]
        elif Judgement.SATISFIED in judgements:
            held.append(invariant.number)
        elif findings:
            unchecked.append(invariant.number)
            reasons.append(f"unchecked {invariant.number}: {findings[0][1].text}")
    reasons += _measured(results)
    if not played:
        what = "cannot run here" if any(result.cannot_run for result in results) else "not played to its end"
        cells = (name, *("" for _ in range(len(_TITLES) - 4)), what, "", "")
    else:
        cells = (
            name,
            str(len(results)),
            *(_sum(played, field) for field in ("faults", "sent", "accepted", "gave_up", "lost")),
            *(_sum(played, field) for field in ("applied_twice", "unaccounted")),
            *(_worst(played, field) for field in ("worst_answer_s", "recovered_after_s", "drained_after_s")),
            _named(held),
            _named(violated),
            _named(unchecked),
        )
    return Line(scenario=name, cells=cells, is_good=all(result.is_good for result in results), reasons=tuple(reasons))


def _measured(results: Sequence[Result]) -> list[str]:
    """Return a sentence for each quantity: the largest value of all rounds."""
    largest: dict[str, Measured] = {}
    for result in results:
        for one in result.measures:
            if one.what not in largest or one.value > largest[one.what].value:
                largest[one.what] = one
    return [f"measured {one.what}: {one.value:.3g} {one.unit}, {one.at_most:g} are allowed" for one in largest.values()]


def _sum(played: Sequence[Numbers], field: str) -> str:
    return f"{sum(getattr(numbers, field) for numbers in played):,}"


def _worst(played: Sequence[Numbers], field: str) -> str:
    values: list[float | None] = [getattr(numbers, field) for numbers in played]
    return max((f"{value:.1f}" for value in values if value is not None), key=float, default="-")


def _named(numbers: Sequence[str]) -> str:
    return " ".join(numbers)
