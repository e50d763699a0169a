"""How many examples Hypothesis tries: few in the suite, many with `HYPOTHESIS_PROFILE=thorough`."""

import os

from hypothesis import settings

#: How many, where a test does not say.
QUICK, THOROUGH = 50, 1000


def is_thorough() -> bool:
    """Say whether many are to be tried."""
    return os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def examples(*, quick: int, thorough: int, steps: int = 50) -> settings:
    """Return settings: so many examples in the suite, and thoroughly; of a state machine, of at most `steps` steps."""
    return settings(max_examples=thorough if is_thorough() else quick, stateful_step_count=steps, deadline=None)
