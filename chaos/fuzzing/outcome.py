"""What a target raises, what came of fuzzing it, and what the command line decides."""

import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct


class BrokenPromiseError(AssertionError):
    """Raised when an input makes the code break a promise; its text says which one. It quotes none of the input."""


def promise(holds: object, sentence: str) -> None:
    """Raise `BrokenPromiseError` with `sentence` unless it holds."""
    if not holds:
        raise BrokenPromiseError(sentence)


#: An input of 64 KiB may take a quarter of a second of the processor; in quadratic time it would take several.
BASE_NS = 50_000_000
PER_BYTE_NS = 4_000

_TRIES = 3


def bounded(run: Callable[[bytes], None], *, size_bytes: int | None = None) -> Callable[[bytes], None]:
    """Return `run` with a bound on the processor's time that each call takes.

    `size_bytes` is the size that counts where the input stands for a larger one. What takes too long has two more
    tries: a machine can be busy, and memory has to be tidied up at times.
    """

    def run_bounded(data: bytes) -> None:
        bound_ns = BASE_NS + PER_BYTE_NS * (size_bytes or len(data))
        for _ in range(_TRIES):
            began_ns = time.thread_time_ns()
            run(data)
            if time.thread_time_ns() - began_ns <= bound_ns:
                return
        promise(False, "an input takes time that grows with its size alone")

    return run_bounded


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
