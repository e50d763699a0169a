"""What was measured as tables for a person: medians, spread, ratios, and what became of the targets."""

from collections.abc import Callable, Sequence
from typing import TextIO

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import CPU_US, PER_S, Comparison, Contestant, Report, Verdict
from bench.statistics import Summary

#: Where output goes to a file or a pipe, lines are not cut to the width of a terminal that is not there.
_WIDE = 180

OURS = "ours"


class _Column(Struct, frozen=True, kw_only=True):
    metric: str
    title: str
    digits: int = 0


_COLUMNS = (
    _Column(metric=PER_S, title="per second"),
    _Column(metric="mb_per_s", title="MB a second"),
    _Column(metric="peak_mb", title="highest MB"),
    _Column(metric=CPU_US, title="CPU us"),
    _Column(metric="p50_ms", title="p50 ms", digits=1),
    _Column(metric="p99_ms", title="p99 ms", digits=1),
    _Column(metric="p99.9_ms", title="p99.9 ms", digits=1),
    _Column(metric="elapsed_ms", title="ms"),
    _Column(metric="broker_cpu_us", title="broker CPU us"),
    _Column(metric="database_cpu_us", title="database CPU us"),
    _Column(metric="idle_mb", title="idle MB"),
    _Column(metric="loaded_mb", title="loaded MB"),
    _Column(metric="broker_mb", title="broker MB"),
)


def print_report(report: Report, file: TextIO) -> None:
    """Print all comparisons, then the targets."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=_WIDE)
    for comparison in report.comparisons:
        console.print(comparison_table(comparison))
    if report.verdicts:
        console.print(verdict_table(report.verdicts))
        met = sum(verdict.is_met is True for verdict in report.verdicts)
        console.print(f"{met} of {len(report.verdicts)} targets met")


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison: medians over the rounds, their extremes beside the first column, ratios of ours."""
    columns = [c for c in _COLUMNS if any(one.summary(c.metric) for one in comparison.contestants)]
    ours = comparison.contestant(OURS)
    table = Table(title=comparison.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for number, column in enumerate(columns):
        table.add_column(column.title, justify="right")
        if number == 0:
            table.add_column("low - high", justify="right", style="dim")
            if ours is not None:
                table.add_column("ours is", justify="right")
    for contestant in comparison.contestants:
        table.add_row(*_cells(contestant, columns, ours))
        for reason in contestant.void:
            table.add_row(Text(f"  void: {reason}", style="red"))
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the targets: wanted, measured from the medians, the extremes of single rounds, met or missed."""
    table = Table(title="targets", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "wanted", "measured", "low - high", ""):
        table.add_column(title, justify="left" if not title else "right")
    for verdict in verdicts:
        value = "-" if verdict.value is None else significant(verdict.value)
        table.add_row(
            verdict.text, verdict.wanted, value, spread(verdict.low, verdict.high, significant), outcome(verdict)
        )
    return table


def outcome(verdict: Verdict) -> Text:
    """Return what became of a target in one word or two."""
    if verdict.is_met is None:
        return Text("not measured", style="yellow")
    return Text("met", style="green") if verdict.is_met else Text("missed", style="bold red")


def significant(value: float) -> str:
    """Return a value with as many digits as it deserves: 0.95, 12.3, 1,234."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits are enough
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 - as above


def spread(low: float | None, high: float | None, show: Callable[[float], str]) -> str:
    """Return two extremes, or nothing where there are none."""
    return "" if low is None or high is None else f"{show(low)} - {show(high)}"


def _cells(contestant: Contestant, columns: Sequence[_Column], ours: Contestant | None) -> list[str]:
    cells = [contestant.name]
    for number, column in enumerate(columns):
        summary = contestant.summary(column.metric)
        cells.append("" if summary is None else f"{summary.median:,.{column.digits}f}")
        if number == 0:
            cells.append(_extremes(summary, column))
            if ours is not None:
                cells.append(_ratio(ours.median(column.metric), summary))
    return cells


def _extremes(summary: Summary | None, column: _Column) -> str:
    if summary is None:
        return ""
    return spread(summary.low, summary.high, lambda value: f"{value:,.{column.digits}f}")


def _ratio(ours: float | None, theirs: Summary | None) -> str:
    if ours is None or theirs is None or not theirs.median:
        return ""
    return f"{significant(ours / theirs.median)} x"
