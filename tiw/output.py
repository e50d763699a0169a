"""What commands print: one JSON document, or tables for a person."""

import asyncio
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from broker import BrokerError, Transport
from tiw.settings import FailedError, UsageError

# Rich is imported where something is shown: it takes 4 MB, and what runs for months prints some lines at its start.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Where output goes to a file or a pipe, lines are not cut to the width of a terminal that is not there.
_WIDE = 200

#: Between two columns.
_GAP = 3

#: A column that is no wider is never broken into lines: ids, times and counts are to be read and copied.
_SHORT = 20

#: A wider one has at least so much, or as much as it needs.
_BROKEN = 26

_STYLES = {
    "RECORDING": "cyan",
    "PAUSED": "yellow",
    "STOPPED": "blue",
    "FINISHED": "green",
    "failed": "bold red",
    "ok": "green",
    "no worker": "bold yellow",
    "problem": "bold red",
}


def print_json(value: object) -> None:
    """Print one JSON document, indented, as UTF-8."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    title: str = "",
    spare: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Print rows under columns, or the sentence `empty` if there are none. Numbers stand to the right.

    On a terminal that is too narrow the `spare` columns are left out, the first one first, unless `wide`, which breaks
    no cell into lines either.
    """
    from rich import box  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = list(rows)
    console = make_console()
    if not rows:
        console.print(Text(empty))
        return
    cells = {column: [row[index] for row in rows] for index, column in enumerate(columns)}
    widths = {column: max(len(column), *(len(_cell(value)) for value in values)) for column, values in cells.items()}
    for column in () if wide else spare:
        # What can be broken into lines needs less than it would like to have.
        least = sum(width if width <= _SHORT else min(width, _BROKEN) for width in widths.values())
        if least + _GAP * len(widths) > console.width:
            del cells[column], widths[column]
    if wide:
        console.width = max(console.width, sum(widths.values()) + _GAP * len(widths))
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
    from rich.table import Table  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415

    console = make_console()
    if title:
        console.print(Text(show_text(title), style="bold"))
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


def make_console() -> "Console":
    """Return a console on standard output."""
    from rich.console import Console  # noqa: PLC0415 - see above

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _cell(value: Any) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - see above

    # Text, never markup: values come from anybody.
    shown = show_text("" if value is None else str(value))
    return Text(shown, style=_STYLES.get(shown.split(":")[0], ""))


def show_text(text: str) -> str:
    """Replace what would move the cursor, change colours or turn the direction of writing."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def nothing(what: str, *filters: object, at_all: str = "") -> str:
    """Return what is said in place of an empty table: none at all (`at_all`), or none as asked for."""
    is_filtered = any(value not in (None, False) for value in filters)
    return f"No {what} match." if is_filtered else at_all or f"No {what} yet."


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_since_us(text: str | None) -> int | None:
    """Return what `--since` says, as `parse_moment_us` does."""
    return parse_moment_us(text, "--since")


def parse_moment_us(text: str | None, option: str) -> int | None:
    """Return microseconds since the Unix epoch of an ISO 8601 moment (UTC unless it says otherwise) or an age."""
    if text is None:
        return None
    age = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if age:
        return max(0, time.time_ns() // 1000 - int(age[1]) * _UNITS_S[age[2]] * 1_000_000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} takes 2026-11-23, 2026-11-23T10:00Z, or an age such as 90m, 12h, 3d, not {text!r}"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def show_unix_s(timestamp: int | None) -> str:
    """Return Unix seconds as a person reads them, in UTC; what is no date is shown as the number it is."""
    if not timestamp:
        return ""
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(timestamp)


def show_iso(moment: str) -> str:
    """Shorten `2026-01-01T00:00:00.000000Z` to seconds."""
    return moment[:19].replace("T", " ")


def iso_of_us(moment_us: int) -> str:
    """Return microseconds since the Unix epoch as `2026-01-01T00:00:00.000000Z`."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def show_duration_ms(duration_ms: int | None) -> str:
    """Return a length of time as h:mm:ss."""
    if duration_ms is None:
        return ""
    seconds = round(abs(duration_ms) / 1000)
    sign = "-" if duration_ms < 0 else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def show_bytes(size: int | None) -> str:
    """Return a size with a unit."""
    if size is None:
        return ""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


#: What a command gives the broker to answer.
PATIENCE_S = 10.0


async def require_broker(transport: Transport) -> None:
    """Return once the broker can be used. Raises `FailedError` after `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await transport.wait_ready()
    except TimeoutError:
        raise FailedError(
            f"the broker does not answer within {PATIENCE_S:g} s: see that it runs and that TIW_AMQP_URL is right"
        ) from None


async def require_queue(transport: Transport, consumer: str) -> None:
    """Return if the consumer has a queue. Raises `FailedError`: what is sent to it would be an orphan."""
    if not await queue_exists(transport, consumer):
        raise FailedError(f"consumer {consumer!r} has no queue: start it once with `tiw work {consumer}`")


async def queue_exists(transport: Transport, consumer: str) -> bool:
    """Say whether the consumer has a queue. Raises `FailedError` if the broker does not tell."""
    await require_broker(transport)
    try:
        (state,) = await transport.inspect([consumer])
    except BrokerError as error:
        raise FailedError(str(error)) from error
    return state.exists
