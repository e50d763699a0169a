"""What the command line decides."""

from pathlib import Path

from msgspec import Struct


class Options(Struct, frozen=True, kw_only=True):
    """Bounds of a run: `executions` are spread over the targets by their shares, `seconds` evenly; None: no bound.

    `seed` makes the inputs of a run, as far as the machine's speed lets it. `jobs` targets run side by side.
    """

    targets: tuple[str, ...]
    executions: int | None
    seconds: float | None
    seed: int
    jobs: int
    folder: Path
