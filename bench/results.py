"""What was measured, as the JSON document that `./dev bench --json` prints."""

from typing import Any

from msgspec import Struct

from bench.statistics import Summary, summarize

#: Requests, messages or events per second.
PER_S = "per_s"
#: CPU time of the measured program, user and system, per callback or message, in microseconds.
CPU_US = "cpu_us"


class Contestant(Struct, kw_only=True):
    """One contender's rounds: the values by metric of those that count, and why others do not."""

    name: str
    rounds: list[dict[str, float]] = []
    void: list[str] = []

    def summary(self, metric: str) -> Summary | None:
        """Return a metric in short; None if no round has it."""
        return summarize([values[metric] for values in self.rounds if metric in values])

    def median(self, metric: str) -> float | None:
        """Return the median of a metric; None if no round has it."""
        summary = self.summary(metric)
        return None if summary is None else summary.median


class Comparison(Struct, kw_only=True):
    """Contenders that did the same work in the same run."""

    name: str
    title: str
    contestants: list[Contestant]

    def contestant(self, name: str) -> Contestant | None:
        """Return a contender's rounds; None if it did not run."""
        return next((one for one in self.contestants if one.name == name), None)


class Verdict(Struct, frozen=True, kw_only=True):
    """What became of a target. `value` is None if it was not measured, and `is_met` then too."""

    comparison: str
    text: str
    wanted: str
    value: float | None
    is_met: bool | None
    #: The same of each round alone: the extremes.
    low: float | None = None
    high: float | None = None


class Report(Struct, kw_only=True):
    """One run of the bench."""

    started_at: str
    machine: dict[str, Any]
    options: dict[str, Any]
    comparisons: list[Comparison] = []
    verdicts: list[Verdict] = []
