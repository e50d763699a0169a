"""Counts what a handler was given, and says when the first and the last of it came. Standard library only."""

import json
import os
import threading
import time
from pathlib import Path

#: How many messages there are, and where to write what came of them.
MESSAGES = "BENCH_MESSAGES"
REPORT = "BENCH_REPORT"


class Progress:
    """Counts the messages of one run. The report is one JSON object, written at once when the last one is handled.

    It holds `messages` (those after the first call), `elapsed_s` and `cpu_s`, the CPU time of this process, all from
    the first call to the last. A call counts as much as it says: a group that is handled at once is one call.
    """

    def __init__(self) -> None:
        self._expected = int(os.environ[MESSAGES])
        self._report = Path(os.environ[REPORT])
        self._lock = threading.Lock()
        self._handled = 0
        self._at_first = (0, 0.0, 0.0)

    def handled(self, count: int = 1) -> None:
        """Count `count` more. Threads may call it."""
        with self._lock:
            if not self._handled:
                self._at_first = (count, time.monotonic(), time.process_time())
            before = self._handled
            self._handled += count
            if before < self._expected <= self._handled:
                self._write()

    def _write(self) -> None:
        count, monotonic_s, cpu_s = self._at_first
        report = {
            "messages": self._handled - count,
            "elapsed_s": time.monotonic() - monotonic_s,
            "cpu_s": time.process_time() - cpu_s,
        }
        unfinished = self._report.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(report))
        unfinished.rename(self._report)
