"""The one clock of all evidence."""

import time


def now_us() -> int:
    """Return microseconds of the machine's monotonic clock: the same in all its processes, and never stepped."""
    return time.monotonic_ns() // 1000
