"""The bookkeeping of a running simulation: every send goes in, the report comes out."""

from array import array
from collections import Counter
from collections.abc import Sequence
from math import ceil

from simulator.report import SimulationProgress, SimulationReport
from simulator.scheduling import Send
from simulator.sender import Outcome


class Ledger:
    """Counts what was begun and what became of it."""

    def __init__(self, *, classes: int) -> None:
        self._classes = classes
        self._classes_done = 0
        self._accepted: set[str] = set()
        self._given_up: set[str] = set()
        self._begun: set[str] = set()
        self._duplicates = 0
        self._retries = 0
        self._failures: Counter[str] = Counter()
        self._answers_ms = array("d")

    def begin(self, send: Send) -> None:
        """Note that a send begins."""
        self._begun.add(send.callback.event_id)
        self._duplicates += send.copy > 0

    def settle(self, send: Send, outcome: Outcome) -> None:
        """Note what became of a send that was begun. A copy that is accepted makes up for one that was given up."""
        event_id = send.callback.event_id
        if outcome.accepted:
            self._accepted.add(event_id)
            self._given_up.discard(event_id)
        elif event_id not in self._accepted:
            self._given_up.add(event_id)
        if outcome.answer_ms is not None:
            self._answers_ms.append(outcome.answer_ms)
        self._retries += outcome.retries
        self._failures.update(outcome.failures)
        self._classes_done += send.ends_class

    def progress(self) -> SimulationProgress:
        """Return how far it is now."""
        return SimulationProgress(
            classes=self._classes,
            classes_done=self._classes_done,
            sent=len(self._begun),
            accepted=len(self._accepted),
            gave_up=len(self._given_up),
            retries=self._retries,
            duplicates=self._duplicates,
        )

    def report(self, *, elapsed_s: float) -> SimulationReport:
        """Return the result, once every send that was begun is settled."""
        answers_ms = sorted(self._answers_ms)
        return SimulationReport(
            sent=len(self._begun),
            accepted=len(self._accepted),
            gave_up=len(self._given_up),
            retries=self._retries,
            p50_ms=percentile(answers_ms, 50),
            p99_ms=percentile(answers_ms, 99),
            duplicates=self._duplicates,
            elapsed_s=elapsed_s,
            accepted_ids=frozenset(self._accepted),
            given_up_ids=frozenset(self._given_up),
            failures=dict(self._failures),
        )


def percentile(ascending: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least `percent` of all reach or stay below, to 3 digits; None of nothing."""
    if not ascending:
        return None
    return round(ascending[max(0, ceil(len(ascending) * percent / 100) - 1)], 3)
