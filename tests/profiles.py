"""How many examples Hypothesis tries: few in the suite, many with `HYPOTHESIS_PROFILE=thorough`."""

import os

from hypothesis import settings


def examples(*, quick: int, thorough: int, steps: int = 50) -> settings:
    """Return settings: so many examples in the suite, and thoroughly; of a state machine, of at most `steps` steps."""
    is_thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    return settings(max_examples=thorough if is_thorough else quick, stateful_step_count=steps, deadline=None)
