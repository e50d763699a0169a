"""Let a process that will run for long settle: what it has when it is up, it keeps."""

import gc

#: New objects until the young ones are searched for cycles. The default of 700 is reached by a handful of callbacks in
#: flight, none of which is a cycle; what gathers meanwhile are some megabytes at most.
THRESHOLD = 20_000


def settle() -> None:
    """Take everything that is there now out of the search for cycles, and search less often from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(THRESHOLD)
