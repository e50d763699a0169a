"""What commands print: one JSON document, or tables for a person."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Where output goes to a file or a pipe, lines are not cut to the width of a terminal that is not there.
_WIDE = 200

#: Between two columns.
_GAP = 3

#: A column that is no wider is never broken into lines: ids, times and counts are to be read and copied.
_SHORT = 20

_STYLES = {
    "RECORDING": "cyan",
    "PAUSED": "yellow",
    "STOPPED": "blue",
    "FINISHED": "green",
    "failed": "bold red",
    "ok": "green",
    "abandoned": "bold yellow",
    "problem": "bold red",
}


def print_json(value: object) -> None:
    """Print one JSON document, indented, as UTF-8."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str, title: str = "", spare: Sequence[str] = ()
) -> None:
    """Print rows under columns, or the sentence `empty` if there are none. Numbers stand to the right.

    On a terminal that is too narrow the `spare` columns are left out, the first one first; `--json` has them all.
    """
    rows = list(rows)
    console = make_console()
    if not rows:
        console.print(Text(empty))
        return
    cells = {column: [row[index] for row in rows] for index, column in enumerate(columns)}
    widths = {column: max(len(column), *(len(_cell(value)) for value in values)) for column, values in cells.items()}
    for column in spare:
        if sum(widths.values()) + _GAP * len(widths) > console.width:
            del cells[column], widths[column]
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column, values in cells.items():
        numbers = all(isinstance(value, int) or value is None for value in values)
        short = widths[column] <= _SHORT
        table.add_column(column, justify="right" if numbers else "left", overflow="fold", no_wrap=short)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def print_fields(fields: Mapping[str, object], *, title: str = "") -> None:
    """Print names and values under each other; what is empty is left out."""
    console = make_console()
    if title:
        console.print(Text(_shown(title), style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            grid.add_row(Text(f"  {name}"), _cell(value))
    console.print(grid)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines that are never broken, so that they can be copied."""
    console = make_console()
    for line in lines:
        console.print(_cell(line), soft_wrap=True)


def make_console() -> Console:
    """Return a console on standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _cell(value: Any) -> Text:
    # Text, never markup: values come from strangers.
    shown = _shown("" if value is None else str(value))
    return Text(shown, style=_STYLES.get(shown.split(":")[0], ""))


def _shown(text: str) -> str:
    """Replace what would move the cursor, change colours or turn the direction of writing."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
