"""One target under libFuzzer, in a process of its own: `python -m chaos.fuzzing.worker TARGET [LIBFUZZER ARGUMENTS]`.

libFuzzer ends the process when it is done, by itself: what it found stands on standard error and in the files that
its arguments name. https://llvm.org/docs/LibFuzzer.html#options
"""

import gc
import logging
import shlex
import sys

import atheris
import structlog

from chaos.fuzzing.outcome import bounded

#: What is watched to see which inputs are new. Not ours: the judges of the fuzzed code.
_INSTRUMENTED = ["broker", "ingest", "schemas"]


def main() -> None:
    """Fuzz until the arguments say that it is enough, or a promise is broken."""
    # What is refused a million times is not logged once.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from chaos.fuzzing.targets import TARGETS  # noqa: PLC0415 - what it imports is instrumented on the way
    target = TARGETS[sys.argv.pop(1)]
    # With -merge libFuzzer starts itself again, and this is what it takes itself for.
    sys.argv[0] = shlex.join([sys.executable, "-P", "-m", "chaos.fuzzing.worker", target.name])
    # What is here stays: looking through it again and again would take a tenth of the time.
    gc.freeze()
    atheris.Setup(sys.argv, bounded(target.run, size_bytes=target.stands_for_bytes))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
