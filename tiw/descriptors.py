"""Open files: each connection is one, and many systems give a process 1,024 although it may have more."""

import resource

#: Enough for every connection that an ingest process takes; what asks for all there is can be slow with it.
WANTED = 16_384


def raise_descriptor_limit() -> int:
    """Let this process open up to `WANTED` files, or as many as it may; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
