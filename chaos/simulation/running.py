"""One world from its beginning to its end, and what became of it."""

import gc
import logging
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from sqlalchemy.exc import SAWarning

from chaos.simulation.plan import Bug, Plan
from chaos.simulation.world import World


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a world. `counts` are those of its story; `story` its lines, if they were asked for."""

    seed: int
    virtual_s: float
    steps: int
    callbacks: int
    accepted: int
    crashes: int
    faults: int
    violations: tuple[str, ...]
    counts: Counter[str]
    digest: int
    story: tuple[str, ...] = ()


def run_world(plan: Plan, *, template: Path, bugs: frozenset[Bug] = frozenset(), tells: bool = False) -> Outcome:
    """Run a world to its end. The same plan gives the same story, step by step.

    `template` is an empty database, see `make_template`; files are made beside it. Not to be called where an event loop
    runs.
    """
    with TemporaryDirectory(prefix="tiw-world-", dir=template.parent) as folder:
        world = World(plan, Path(folder), template, bugs)
        with world.active():
            found = world.run()
            # What is put away afterwards has no order.
            steps = world.loop.steps
            world.close()
        _collect()
    story = world.story
    return Outcome(
        seed=plan.seed,
        virtual_s=world.ended_at_s - 1000.0,
        steps=steps,
        callbacks=world.notes.genuine,
        accepted=world.notes.accepted,
        crashes=story.counts["crashed"],
        faults=len(world.plan.faults),
        violations=tuple(found),
        counts=story.counts,
        digest=story.digest,
        story=tuple(story.lines()) if tells else (),
    )


def _collect() -> None:
    """Collect what is left of the dead now: SQLAlchemy complains of connections that were never given back."""
    log = logging.getLogger("sqlalchemy.pool")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            gc.collect()
    finally:
        log.setLevel(level)


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
