"""What a person sees while a command works: bars, and what was counted so far."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from tiw.output import show_text


class _Words(ProgressColumn):
    """Shows words that may be anybody's: a key of a bucket, a reason in a manifest."""

    def __init__(self, words: Callable[[Task], str]) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self._words = words

    def render(self, task: Task) -> Text:
        return Text(show_text(self._words(task)))


def make_bars(*, is_quiet: bool) -> Progress:
    """Return what shows how files come: a bar for each, with its `state`. Nothing is shown where nobody looks."""
    console = _make_console()
    return Progress(
        _Words(lambda task: task.description),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        _Words(lambda task: task.fields["state"]),
        console=console,
        disable=is_quiet or not console.is_terminal,
    )


def make_counter(*, is_quiet: bool) -> Progress:
    """As `make_bars`, for what is counted one by one, nobody knowing how many there are."""
    console = _make_console()
    return Progress(
        _Words(lambda task: task.description),
        _Words(lambda task: f"{task.completed:.0f}"),
        _Words(lambda task: task.fields["state"]),
        console=console,
        disable=is_quiet or not console.is_terminal,
    )


def _make_console() -> Console:
    """Return a console on standard error, so that the result of a command stands alone."""
    return Console(stderr=True, highlight=False)
