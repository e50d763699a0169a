"""One world from its beginning to its end, and what became of it."""

import gc
import logging
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from sqlalchemy.exc import SAWarning

from chaos.simulation.bugs import Bug
from chaos.simulation.plan import Plan
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
        callbacks=len(world.evidence.sent),
        accepted=len(world.evidence.accepted),
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
