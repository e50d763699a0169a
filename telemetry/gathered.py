"""Metrics for what happens thousands of times a second: gathered in plain numbers, handed over now and then.

To count something in prometheus-client takes a lock, and with several processes a write into a shared file: as long as
it takes to check a signature.
"""

from bisect import bisect_left
from typing import Any

from prometheus_client import Histogram


class GatheredHistogram(Histogram):
    """A histogram that shows what was observed only after the next `hand_over`; with labels, of each child alone.

    Both are for one thread alone.
    """

    def _metric_init(self) -> None:
        super()._metric_init()
        self._gathered = [0] * len(self._upper_bounds)
        self._gathered_sum = 0.0

    def observe(self, amount: float, exemplar: Any = None) -> None:
        """Observe `amount`."""
        del exemplar
        self._gathered[bisect_left(self._upper_bounds, amount)] += 1
        self._gathered_sum += amount

    def hand_over(self) -> None:
        """Let what was observed be seen."""
        for bucket, count in enumerate(self._gathered):
            if count:
                self._buckets[bucket].inc(count)
                self._gathered[bucket] = 0
        self._sum.inc(self._gathered_sum)
        self._gathered_sum = 0.0
