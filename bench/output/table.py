"""What was measured as tables for a person: medians, spread, ratios, and what became of the targets."""

from collections.abc import Callable, Sequence
from typing import Any, TextIO

from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import CPU_US, PER_S, Comparison, Contestant, Report, Verdict
from bench.statistics import Summary

#: Where output goes to a file or a pipe, lines are not cut to the width of a terminal that is not there.
_WIDE = 200

OURS = "ours"


class _Column(Struct, frozen=True, kw_only=True):
    metric: str
    title: str
    digits: int = 0


_COLUMNS = (
    _Column(metric=PER_S, title="per second"),
    _Column(metric="mb_per_s", title="MB a second"),
    _Column(metric="peak_mb", title="highest MB"),
    _Column(metric="per_cpu_s", title="per CPU second"),
    _Column(metric="day_cpu_s", title="a day, CPU s"),
    _Column(metric="idle_percent", title="idle, % of a core", digits=3),
    _Column(metric="console_percent", title="console, % of a core", digits=1),
    _Column(metric="told_per_s", title="told a second", digits=2),
    _Column(metric=CPU_US, title="CPU us"),
    _Column(metric="broker_cpu_us", title="broker CPU us"),
    _Column(metric="worker_cpu_us", title="worker CPU us"),
    _Column(metric="database_cpu_us", title="database CPU us"),
    _Column(metric="p50_ms", title="p50 ms", digits=1),
    _Column(metric="p99_ms", title="p99 ms", digits=1),
    _Column(metric="p99.9_ms", title="p99.9 ms", digits=1),
    _Column(metric="elapsed_ms", title="ms"),
    _Column(metric="elapsed_s", title="s", digits=1),
    _Column(metric="idle_mb", title="idle MB"),
    _Column(metric="loaded_mb", title="loaded MB"),
    _Column(metric="broker_mb", title="broker MB"),
)

#: Beside these stands what ours is to each contender.
_COMPARED = (PER_S, CPU_US)


class Layout(Struct, frozen=True, kw_only=True):
    """A table as text: its headers, and rows of as many cells. The first cell of a row is its name."""

    headers: list[str]
    rows: list[list[str]]


def print_report(report: Report, file: TextIO) -> None:
    """Print where it was measured, all comparisons, then the targets."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=_WIDE)
    for line in machine_lines(report.machine):
        console.print(line)
    for comparison in report.comparisons:
        console.print(comparison_table(comparison))
    if report.verdicts:
        console.print(verdict_table(report.verdicts))
        met = sum(verdict.is_met is True for verdict in report.verdicts)
        console.print(f"{met} of {len(report.verdicts)} targets met")


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """Return where it was measured, and who, in a few lines."""
    if not machine:
        return []
    processors = f"{machine['processors']} x {machine['processor']}, {machine['memory_mb'] / 1000:.0f} GB"
    servers = f"RabbitMQ {machine['rabbitmq']}, PostgreSQL {machine['postgresql']}"
    lines = [
        f"{processors}, {machine['system']}, Linux {machine['kernel']}",
        f"{machine['build']}, uvloop {machine['uvloop']}",
        f"{servers}, Node {machine['node']}, Go {machine['go'] or '-'}",
        ", ".join(f"{name} {version}" for name, version in machine["peers"].items()),
    ]
    if machine["commit"]:
        lines.append(f"ours: {machine['commit']}" + (f"; before: {machine['before']}" if machine["before"] else ""))
    return lines


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison as it is printed."""
    layout = lay_out(comparison)
    title = f"{comparison.title} ({rounds_of(comparison)})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, header in enumerate(layout.headers):
        table.add_column(header, justify="right" if number else "left", style="dim" if header == _SPREAD else None)
    for contestant, row in zip(comparison.contestants, layout.rows, strict=True):
        table.add_row(*row)
        for reason in contestant.void:
            table.add_row(Text(f"  void: {reason}", style="red"))
    return table


def rounds_of(comparison: Comparison) -> str:
    """Return how many rounds count, in words: of all contenders, or from the fewest to the most."""
    counts = {len(one.rounds) for one in comparison.contestants} or {0}
    numbers = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{numbers} round{'' if counts == {1} else 's'}"


_SPREAD = "low - high"


def lay_out(comparison: Comparison) -> Layout:
    """Return a comparison: medians over the rounds, their extremes beside the first column, ratios of ours."""
    columns = [c for c in _COLUMNS if any(one.summary(c.metric) for one in comparison.contestants)]
    ours = comparison.contestant(OURS)
    headers = [""]
    for number, column in enumerate(columns):
        headers.append(column.title)
        if number == 0:
            headers.append(_SPREAD)
        if ours is not None and column.metric in _COMPARED:
            headers.append("ours is")
    return Layout(headers=headers, rows=[_cells(one, columns, ours) for one in comparison.contestants])


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the targets: wanted, measured from the medians, the extremes of single rounds, met or missed."""
    table = Table(title="targets", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "wanted", "measured", _SPREAD, ""):
        table.add_column(title, justify="left" if not title else "right")
    styles = {"met": "green", "missed": "bold red", "not measured": "yellow"}
    for verdict in verdicts:
        word = outcome(verdict)
        table.add_row(*verdict_cells(verdict), Text(word, style=styles[word]))
    return table


def verdict_cells(verdict: Verdict) -> list[str]:
    """Return a target, what was wanted, what was measured, and its extremes."""
    value = "-" if verdict.value is None else significant(verdict.value)
    return [verdict.text, verdict.wanted, value, spread(verdict.low, verdict.high, significant)]


def outcome(verdict: Verdict) -> str:
    """Return what became of a target in one word or two."""
    if verdict.is_met is None:
        return "not measured"
    return "met" if verdict.is_met else "missed"


def significant(value: float) -> str:
    """Return a value with as many digits as it deserves: 0.034, 0.95, 12.3, 1,234."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits are enough
        return f"{value:,.0f}"
    if abs(value) >= 10:  # noqa: PLR2004 - as above
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"  # noqa: PLR2004 - as above


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
        if ours is not None and column.metric in _COMPARED:
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
