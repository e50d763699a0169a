"""Whether leases still hold: a process that stood still may have lost them to others without noticing."""

import math
import time
from collections.abc import Callable


class Leases:
    """The leases of one process, as far as it can know without asking: each lasts `lease_s` from its last renewal."""

    def __init__(self, lease_s: float, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._monotonic_s = monotonic_s
        self._renewed_at_s = monotonic_s()
        self._lost_at_s = -math.inf

    def renewed(self, *, began_s: float) -> None:
        """Take note that all were renewed, by a statement that was begun then, on the monotonic clock.

        One that came too late renews only what nobody had taken by then: what was claimed before it counts as lost.
        """
        if began_s - self._renewed_at_s > self._lease_s:
            self._lost_at_s = began_s
        self._renewed_at_s = began_s

    def hold(self, since_s: float) -> bool:
        """Say whether a lease that was asked for at `since_s` or later cannot have run out since then."""
        proved_s = max(since_s, self._renewed_at_s)
        return since_s > self._lost_at_s and self._monotonic_s() - proved_s <= self._lease_s
