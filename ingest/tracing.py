"""The trace of a callback: https://www.w3.org/TR/trace-context/#traceparent-header."""

import random
import re

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# Seeded by the system, once: an id has to be unique, not secret, and a system call for each one is dear.
_random_bits = random.Random().getrandbits  # noqa: S311 - see above


def traceparent(received: str | None) -> str:
    """Return the traceparent that a proxy in front began, or a new one. What is not one is not passed on."""
    if received is not None and _TRACEPARENT.fullmatch(received):
        return received
    return f"00-{_random_bits(128):032x}-{_random_bits(64):016x}-01"
