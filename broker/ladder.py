"""The retry ladder: fixed delays, one rung each, the same for all consumers."""

from collections.abc import Sequence

#: In seconds. Retry n waits on rung n, after the last on the last.
DEFAULT_RETRY_DELAYS_S: tuple[float, ...] = (1, 5, 30, 120, 600, 3600)

#: Where a delivery waits whose event another worker is handling, or whose worker was just lost.
LEASE_WAIT_S = 5.0


def rung_for_retry(delays_s: Sequence[float], retry: int) -> float:
    """Return the delay of retry number `retry`, counted from 1."""
    return delays_s[min(retry, len(delays_s)) - 1]


def rung_not_shorter(delays_s: Sequence[float], after_s: float) -> float:
    """Return the shortest delay of at least `after_s`; the longest there is if none is that long."""
    return min((delay_s for delay_s in delays_s if delay_s >= after_s), default=max(delays_s))
