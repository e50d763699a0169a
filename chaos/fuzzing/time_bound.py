"""A bound on the time that one input takes: it may grow with the input's size, and not with its square."""

import time
from collections.abc import Callable

from chaos.fuzzing.promises import promise

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
