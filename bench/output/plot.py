"""Draw a report: `python -m bench.output.plot REPORT.json PICTURE.svg`. Standard library and matplotlib only."""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib import pyplot as plt

OURS = "#1f6feb"
PEER = "#b5bdc8"
#: Ours as it was at the commit to compare with.
BEFORE = "#a5c8f7"
#: What a callback costs, part by part.
PARTS = {
    "cpu_us": ("server", "#1f6feb"),
    "broker_cpu_us": ("broker", "#e3795a"),
    "worker_cpu_us": ("worker", "#57a773"),
    "database_cpu_us": ("database", "#c9a227"),
}
#: The same in lines, which need more to be seen.
PEER_LINE = "#7d8590"
INK = "#24292f"

#: Width and height of one panel, in inches.
_PANEL = (6.4, 3.5)
_COLUMNS = 2

_Comparison: TypeAlias = dict[str, Any]
_Draw: TypeAlias = Callable[[Any, _Comparison], None]


def draw(report: dict[str, Any], picture: Path) -> None:
    """Draw a panel for each comparison that has one."""
    mpl.rcParams.update(
        {
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            # The same numbers give the same file.
            "svg.hashsalt": "tiw-callbacks",
        }
    )
    made = {one["name"]: one for one in report["comparisons"]}
    panels = [(panel, made[name]) for name, panel in _PANELS if name in made]
    if not panels:
        raise SystemExit("bench: nothing of this report is drawn")
    rows = -(-len(panels) // _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    figure, axes = plt.subplots(
        rows, columns, figsize=(_PANEL[0] * columns, _PANEL[1] * rows), squeeze=False, layout="constrained"
    )
    for axis, (panel, comparison) in zip(axes.flat, panels, strict=False):
        panel(axis, comparison)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    machine, options = report["machine"], report["options"]
    figure.supxlabel(
        f"{machine['processors']} x {machine['processor']}, RabbitMQ {machine['rabbitmq']}, "
        f"PostgreSQL {machine['postgresql']}, Python {machine['python']}, Node {machine['node']}, Go {machine['go']}; "
        f"client, servers and contenders "
        f"on this one machine; medians, whiskers: extremes; rounds: {options['rounds']}",
        fontsize=7,
    )
    figure.savefig(picture, metadata={"Date": None})


def _bars(title: str, label: str, *, metric: str = "per_s") -> _Draw:
    """Return a panel of horizontal bars, the best one at the top."""

    def panel(axis: Any, comparison: _Comparison) -> None:
        rows = [(one["name"], values) for one in comparison["contestants"] if (values := _values(one, metric))]
        rows.sort(key=lambda row: statistics.median(row[1]), reverse=metric != "per_s")
        axis.set_title(title)
        if not rows:
            return
        for place, (name, values) in enumerate(rows):
            median = statistics.median(values)
            whiskers = [[median - min(values)], [max(values) - median]]
            axis.barh(place, median, height=0.62, color=_color(name))
            axis.errorbar(median, place, xerr=whiskers, color=INK, linewidth=0.8, capsize=2)
            axis.annotate(
                f"{median:,.0f}",
                (max(values), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, max(max(values) for _, values in rows) * 1.15)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.set_xlabel(label)

    return panel


def _parts(title: str, label: str, **names: str) -> _Draw:
    """Return a panel of CPU time, the parts of each bar one after another, the least at the top.

    `names` are other words for the metrics.
    """

    def panel(axis: Any, comparison: _Comparison) -> None:
        rows = [
            (one["name"], {metric: statistics.median(values) for metric in PARTS if (values := _values(one, metric))})
            for one in comparison["contestants"]
        ]
        rows = sorted((row for row in rows if row[1]), key=lambda row: -sum(row[1].values()))
        axis.set_title(title)
        shown = set()
        for place, (_, medians) in enumerate(rows):
            left = 0.0
            for metric, median in medians.items():
                word, color = names.get(metric, PARTS[metric][0]), PARTS[metric][1]
                axis.barh(place, median, left=left, height=0.62, color=color, label=None if word in shown else word)
                shown.add(word)
                left += median
            axis.annotate(
                f"{left:,.0f}", (left, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
            )
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        for tick, (name, _) in zip(axis.get_yticklabels(), rows, strict=True):
            tick.set_fontweight("bold" if name.startswith("ours") else "normal")
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, max((sum(medians.values()) for _, medians in rows), default=1) * 1.15)
        axis.set_xlabel(label)
        axis.legend(frameon=False, fontsize=8, loc="upper right")

    return panel


def _latencies(axis: Any, comparison: _Comparison) -> None:
    """Draw percentiles over the rate, and the bare round trip of the same run as lines across."""
    contestants = [one for one in comparison["contestants"] if one["name"][0].isdigit()]
    for one in comparison["contestants"]:
        if one not in contestants and (values := _values(one, "p50_ms")):
            axis.axhline(statistics.median(values), color=PEER_LINE, linewidth=0.8, label=f"{one['name']}, p50")
    for metric, style in (("p50_ms", "-"), ("p99_ms", "--"), ("p99.9_ms", ":")):
        points = [(_number(one["name"]), values) for one in contestants if (values := _values(one, metric))]
        _line(axis, points, style=style, label=metric.removesuffix("_ms"), color=OURS)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_plain)
    axis.yaxis.set_minor_formatter(_plain)
    axis.set_xticks([_number(one["name"]) for one in contestants])
    axis.set_xlabel("callbacks/s sent")
    axis.set_ylabel("ms")
    axis.set_title("End to end: from the 200 to the visible row")
    axis.legend(frameon=False)


def _growth(
    title: str, label: str, *, scale: str = "linear", metric: str = "per_s", ylabel: str = "per second"
) -> _Draw:
    """Return a panel of a metric over something that grows, a line for each contender."""

    def panel(axis: Any, comparison: _Comparison) -> None:
        lines: dict[str, list[tuple[float, list[float]]]] = {}
        for one in comparison["contestants"]:
            name, _, size = one["name"].rpartition(", ")
            if values := _values(one, metric):
                lines.setdefault(name or "ours", []).append((_number(size), values))
        for name, points in lines.items():
            _line(axis, points, style="-", label=name, color=OURS if name.startswith("ours") else PEER_LINE)
        axis.set_title(title)
        if not lines:
            return
        sizes = sorted({size for points in lines.values() for size, _ in points})
        axis.set_xscale("log")
        axis.set_xticks(sizes, [_plain(size, None) for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_yscale(scale)
        if scale == "linear":
            axis.set_ylim(0, 1.1 * max(max(values) for points in lines.values() for _, values in points))
        axis.yaxis.set_major_formatter(_plain)
        axis.set_xlabel(label)
        axis.set_ylabel(ylabel)
        if len(lines) > 1:
            axis.legend(frameon=False)

    return panel


def _line(axis: Any, points: list[tuple[float, list[float]]], *, style: str, label: str, color: str) -> None:
    places = [place for place, _ in points]
    medians = [statistics.median(values) for _, values in points]
    below = [median - min(values) for median, (_, values) in zip(medians, points, strict=True)]
    above = [max(values) - median for median, (_, values) in zip(medians, points, strict=True)]
    axis.errorbar(
        places,
        medians,
        yerr=[below, above],
        linestyle=style,
        marker="o",
        markersize=4,
        capsize=2,
        label=label,
        color=color,
    )


def _color(name: str) -> str:
    if not name.startswith("ours"):
        return PEER
    return BEFORE if name.endswith("before") else OURS


def _values(contestant: dict[str, Any], metric: str) -> list[float]:
    return [values[metric] for values in contestant["rounds"] if metric in values]


def _number(name: str) -> float:
    """Return the number that a contender's name begins with: `1,000 connections`, `0.3 KiB`."""
    return float(name.split(maxsplit=1)[0].replace(",", ""))


def _plain(value: float, place: object) -> str:
    """Return a number for an axis: no powers of ten."""
    del place
    return f"{value:,g}"


_PANELS: list[tuple[str, _Draw]] = [
    ("accepting", _bars("Accepting: answered 200 (bare aiohttp keeps nothing)", "callbacks/s")),
    ("accepting", _parts("Accepting: CPU time", "µs per callback")),
    ("handling", _bars("Handling without work", "messages/s")),
    ("handling-real", _bars("Handling: event and recording stored in PostgreSQL", "events/s")),
    ("handling-real", _parts("Handling: CPU time, many at once", "µs per event", cpu_us="worker")),
    ("lonely", _parts("Handling: CPU time, one event at a time", "µs per event", cpu_us="worker")),
    ("whole", _parts("From the request to the row, all on one host: CPU time", "µs per callback")),
    ("end-to-end", _latencies),
    ("growth-connections", _growth("Accepting over more connections", "connections")),
    (
        "growth-bodies",
        _growth("Accepting longer bodies: CPU time", "KiB", scale="log", metric="cpu_us", ylabel="µs per callback"),
    ),
    ("growth-backlog", _growth("Draining a backlog into PostgreSQL", "events waiting")),
]


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
