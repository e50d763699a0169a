import io
import subprocess
import sys

from rich.console import Console

from simulator import SimulationProgress, show_progress

DONE = SimulationProgress(classes=3, classes_done=3, sent=9, accepted=8, gave_up=1, retries=6, duplicates=2)


def shown(console: Console) -> str:
    with show_progress(console) as on_progress:
        on_progress(DONE)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_the_counts() -> None:
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None))

    assert "3/3" in text
    assert "8 of 9 accepted, 6 retries, 1 given up" in text


def test_off_a_terminal_nothing_is_drawn() -> None:
    assert shown(Console(file=io.StringIO(), force_terminal=False)).strip() == ""


def test_the_package_does_without_rich() -> None:
    program = "import sys, simulator; sys.exit('rich' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
