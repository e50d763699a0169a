"""What many worlds add up to."""

from collections import Counter

from chaos.simulation.running import Outcome


class Totals:
    """Sums over worlds; `violated` are the seeds of those in which a promise was broken."""

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self.violated: list[int] = []
        self._worlds = 0
        self._steps = 0
        self._callbacks = 0
        self._accepted = 0
        self._faults = 0
        self._counts: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count a world in."""
        self.virtual_s += outcome.virtual_s
        self._worlds += 1
        self._steps += outcome.steps
        self._callbacks += outcome.callbacks
        self._accepted += outcome.accepted
        self._faults += outcome.faults
        self._counts += outcome.counts
        if outcome.violations:
            self.violated.append(outcome.seed)

    def report(self, *, elapsed_s: float) -> str:
        """Return all numbers, a line each."""
        counts, hours = self._counts, self.virtual_s / 3600
        speed = f"{hours / elapsed_s:,.2f} virtual hours per second, {self._steps / elapsed_s:,.0f} steps per second"
        lines = {
            "worlds": self._worlds,
            "virtual hours": f"{hours:,.1f}",
            "steps of event loops": f"{self._steps:,}",
            "callbacks sent": f"{self._callbacks:,}",
            "accepted": f"{self._accepted:,}",
            "answered 200": f"{counts['answered 200']:,} (the same callback may be sent again)",
            "kept by the broker": f"{counts['kept']:,}",
            "effects of handlers": f"{counts['effect']:,}",
            "faults": f"{self._faults:,}",
            "crashes": f"{counts['crashed'] - counts['ended']:,}",
            "stops by a signal": f"{counts['stopped']:,}",
            "sessions lost": f"{counts['session lost']:,}",
            "confirms lost": f"{counts['lost a confirm']:,}",
            "files torn or lost with the power": f"{counts['tore a file'] + counts['lost a name']:,}",
            "speed": speed,
            "worlds with a broken promise": len(self.violated),
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())
