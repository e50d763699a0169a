"""What the kernel says of a process and its descendants. Linux only: /proc, and the clock of another process."""

import os
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: What a clock's number ends with that counts the CPU time of a whole process: CPUCLOCK_SCHED of the kernel.
_PROCESS_CLOCK = 2


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
    return sum(own_cpu_s(one) + _waited_for_s(one) for one in process_tree(pid))


def own_cpu_s(pid: int) -> float:
    """Return the CPU time of this process alone, to the nanosecond, where /proc counts ticks of 10 ms; 0 if it is gone.

    The number of the clock is made as `clock_getcpuclockid` makes it.
    """
    try:
        return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)
    except OSError:
        return 0.0


def resident_bytes(pid: int) -> int:
    """Return the resident memory of `pid` and its descendants. Pages that they share count more than once."""
    return sum(_resident_pages(one) for one in process_tree(pid)) * _PAGE_BYTES


def _waited_for_s(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # cutime and cstime: fields 16 and 17 of proc(5). A name may hold spaces and parentheses.
    return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[13:15]) / _TICKS_PER_S


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
