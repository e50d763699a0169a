"""What the kernel says of a process and its descendants. Linux only: /proc."""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_tree(pid: int) -> list[int]:
    """Return `pid` and all that descend from it, as far as they run."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU time, user and system, that `pid` and its descendants have used, in seconds.

    What descendants used that have ended counts with whoever waited for them.
    """
    return sum(_ticks(one) for one in process_tree(pid)) / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Return the resident memory of `pid` and its descendants. Pages that they share count more than once."""
    return sum(_resident_pages(one) for one in process_tree(pid)) * _PAGE_BYTES


def _ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # utime, stime, cutime, cstime: fields 14 to 17 of proc(5). A name may hold spaces and parentheses.
    return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[11:15])


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
