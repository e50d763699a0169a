"""What came of fuzzing one target."""

from pathlib import Path

from msgspec import Struct


class Outcome(Struct, frozen=True, kw_only=True):
    """Counts of one target's run. `edges` is how many branches of the code were taken; 0 where nobody counts.

    `finding` is the input that broke a promise, and `reason` says which; both are None where none did. A reason alone:
    the fuzzer itself failed.
    """

    target: str
    executions: int
    seconds: float
    edges: int = 0
    finding: Path | None = None
    reason: str | None = None
