"""Writes the figures of a report into a Markdown document, between `<!-- bench: NAME -->` and `<!-- end -->`.

NAME is a comparison's name, or `machine`, `expect`, `model` or `targets`. What the report does not have stays as it
was; each table says when it was measured.
"""

import re
from collections.abc import Callable, Iterator

from bench.comparisons import (
    accepting,
    demo,
    end_to_end,
    growth_backlog,
    handling,
    handling_real,
    lonely,
    sitting,
    whole,
)
from bench.contenders import accepting as servers
from bench.output.table import OURS, lay_out, machine_lines, outcome, rounds_of, significant, verdict_cells
from bench.results import CPU_US, PER_S, Report
from bench.runs.sitting import DAY_S, IDLE_PERCENT
from bench.runs.whole import PER_CPU_S

_BLOCK = re.compile(r"(<!-- bench: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

#: What a recording sends in the mean: started, stopped, finished; a pause adds one or two.
CALLBACKS_PER_RECORDING = 3.2
#: The busiest second to the mean one: classes begin on the hour.
_PEAK = 10
_DAY_S = 86_400
_MILLION = 1_000_000

_PARTS = (CPU_US, "broker_cpu_us", "worker_cpu_us", "database_cpu_us")


def filled(text: str, report: Report) -> str:
    """Return the document with what the report has in its blocks."""

    def fill(block: re.Match[str]) -> str:
        lines = _block(block[2], report)
        return "".join([block[1], *(f"{line}\n" for line in lines), block[3]]) if lines else block[0]

    return _BLOCK.sub(fill, text)


def _block(name: str, report: Report) -> list[str]:
    """Return the lines of a block; none if the report does not have it."""
    match name:
        case "machine":
            return list(_machine(report))
        case "expect":
            return list(_expectations(report))
        case "model":
            return list(_model(report))
        case "targets":
            return list(_targets(report))
        case _:
            return list(_comparison(name, report))


def _comparison(name: str, report: Report) -> Iterator[str]:
    made = next((one for one in report.comparisons if one.name == name), None)
    if made is None:
        return
    layout = lay_out(made)
    rows = [[f"**{row[0]}**" if row[0].startswith(OURS) else row[0], *row[1:]] for row in layout.rows]
    yield from _table(layout.headers, rows)
    yield ""
    yield f"{rounds_of(made)}, {report.started_at[:10]}."


def _machine(report: Report) -> Iterator[str]:
    machine = report.machine
    if not machine:
        return
    yield f"Measured on {report.started_at[:10]}:"
    yield ""
    yield from (f"- {line}" for line in machine_lines(machine))


def _targets(report: Report) -> Iterator[str]:
    if not report.verdicts:
        return
    rows = []
    for verdict in report.verdicts:
        word = outcome(verdict)
        rows.append([*verdict_cells(verdict), f"**{word}**" if word == "missed" else word])
    yield from _table(["", "wanted", "measured", "low - high", ""], rows)
    yield ""
    yield f"{sum(one.is_met is True for one in report.verdicts)} of {len(rows)} met, {report.started_at[:10]}."


def _expectations(report: Report) -> Iterator[str]:
    """Tell what a user gets, in a dozen lines."""
    value = _reader(report)
    ours, embedded, everything = servers.OURS.name, servers.OURS_EMBEDDED.name, servers.OURS_EMBEDDED_ALL.name
    at_500 = end_to_end.contender_name(end_to_end.TARGET_RATE)
    largest = f"{growth_backlog.BACKLOGS[-1]:,} events"
    wanted: list[tuple[str, str, tuple[tuple[str, str, str], ...]]] = [
        (
            "callbacks accepted, each confirmed by a quorum queue before its 200",
            "{} a second, p99 {} ms; {} µs of CPU in ingest, {} in the broker",
            (
                (accepting.NAME, ours, PER_S),
                (accepting.NAME, ours, "p99_ms"),
                (accepting.NAME, ours, CPU_US),
                (accepting.NAME, ours, "broker_cpu_us"),
            ),
        ),
        (
            "the same, embedded, each fsynced",
            "{} a second; {} with all consumers running in the same process",
            ((accepting.NAME, embedded, PER_S), (accepting.NAME, everything, PER_S)),
        ),
        (
            "from the 200 to the visible row, at 500 callbacks a second",
            "{} ms (p50), {} ms (p99)",
            ((end_to_end.NAME, at_500, "p50_ms"), (end_to_end.NAME, at_500, "p99_ms")),
        ),
        ("handled without work, one process", "{} a second", ((handling.NAME, OURS, PER_S),)),
        (
            "event and recording stored in PostgreSQL, each once, one process",
            "{} a second; {} µs of CPU in the worker, {} in the database",
            (
                (handling_real.NAME, OURS, PER_S),
                (handling_real.NAME, OURS, CPU_US),
                (handling_real.NAME, OURS, "database_cpu_us"),
            ),
        ),
        (
            "an event that comes alone, stored in PostgreSQL",
            "{} µs of CPU in the worker, {} in the database",
            ((lonely.NAME, OURS, CPU_US), (lonely.NAME, OURS, "database_cpu_us")),
        ),
        (
            "from the request to the row, all of it on one host",
            "{} a second; {} for each second of CPU",
            ((whole.NAME, OURS, PER_S), (whole.NAME, OURS, PER_CPU_S)),
        ),
        ("a backlog of 100,000 events, one worker", "{} a second", ((growth_backlog.NAME, largest, PER_S),)),
        (
            "resident memory",
            "{} MB an ingest process under load, {} MB a worker, {} MB `tiw up` idle",
            (
                (accepting.NAME, ours, "loaded_mb"),
                (handling_real.NAME, OURS, "loaded_mb"),
                (sitting.NAME, sitting.UP, "idle_mb"),
            ),
        ),
        (
            "`tiw up` on a quiet day",
            "{} % of a processor idle; {} s of CPU in a day with 2,000 callbacks",
            ((sitting.NAME, sitting.UP, IDLE_PERCENT), (sitting.NAME, sitting.UP, DAY_S)),
        ),
        ("`./dev demo`, after the first time", "{} s", ((demo.NAME, demo.DEMO, demo.ELAPSED_S),)),
    ]
    rows = []
    for what, sentence, places in wanted:
        values = [found for place in places if (found := value(*place)) is not None]
        if len(values) == len(places):
            rows.append([what, sentence.format(*(_rounded(one) for one in values))])
    if rows:
        yield from _table(["", ""], rows, is_text=True)


def _model(report: Report) -> Iterator[str]:
    """Tell what a callback costs, part by part, and what a million recordings a day come to."""
    value = _reader(report)
    places = {
        "ours, as many as go": (whole.NAME, OURS),
        "ours, 500 a second": (end_to_end.NAME, end_to_end.contender_name(end_to_end.TARGET_RATE)),
        "ours, embedded, as many as go": (whole.NAME, "ours, embedded"),
        "ours, embedded, one at a time": (sitting.NAME, sitting.UP),
        **{name: (whole.NAME, name) for name in whole.PAIRS if not name.startswith(OURS)},
    }
    rows = []
    for name, place in places.items():
        parts = [value(*place, part) for part in _PARTS]
        if parts[0] is None:
            continue
        together_us = sum(part or 0.0 for part in parts)
        a_day = _MILLION * CALLBACKS_PER_RECORDING
        hours = a_day * together_us / 1e6 / 3600
        processors = a_day / _DAY_S * _PEAK * together_us / 1e6
        cells = ["" if part is None else f"{part:,.0f}" for part in parts]
        rows.append([name, *cells, f"{together_us:,.0f}", significant(hours), significant(processors)])
    if rows:
        headers = ["CPU µs per callback", "ingest", "broker", "worker", "database", "together"]
        yield from _table([*headers, "CPU hours per million recordings", "processors at its peak"], rows)


def _reader(report: Report) -> Callable[[str, str, str], float | None]:
    made = {one.name: one for one in report.comparisons}

    def value(comparison: str, contestant: str, metric: str) -> float | None:
        found = made[comparison].contestant(contestant) if comparison in made else None
        return None if found is None else found.median(metric)

    return value


def _rounded(value: float) -> str:
    """Return a value as a reader keeps it in mind: thousands to the nearest hundred."""
    return f"{round(value, -2):,.0f}" if value >= 1000 else significant(value)  # noqa: PLR2004 - three digits are enough


def _table(headers: list[str], rows: list[list[str]], *, is_text: bool = False) -> Iterator[str]:
    aligned = "---" if is_text else "---:"
    yield _line([header.replace(" us", " µs") for header in headers])
    yield f"|---|{'|'.join(aligned for _ in headers[1:])}|"
    yield from (_line(row) for row in rows)


def _line(cells: list[str]) -> str:
    # A bar inside of a cell would end it.
    escaped = [cell.replace("|", "\\|").replace(" - ", " \N{EN DASH} ") for cell in cells]
    return f"| {' | '.join(escaped)} |"
