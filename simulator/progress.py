"""Progress on a terminal. Imported by whoever shows it, not by the package: nobody else needs rich."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.report import SimulationProgress
from simulator.simulation import OnProgress


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[OnProgress]:
    """Draw a bar while the block runs and give what moves it, for `simulate(on_progress=...)`.

    By default on standard error, so that standard output stays for results. Off a terminal nothing is drawn.
    """
    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn("classes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("classes", total=None, counts="")

        def move(progress: SimulationProgress) -> None:
            bar.update(task, total=progress.classes, completed=progress.classes_done, counts=_counts(progress))

        yield move


def _counts(progress: SimulationProgress) -> str:
    given_up = f", [red]{progress.gave_up} given up[/red]" if progress.gave_up else ""
    return f"{progress.accepted} of {progress.sent} accepted, {progress.retries} retries{given_up}"
