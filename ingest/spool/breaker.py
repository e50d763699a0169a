"""Whether to try the broker at all: a callback need not wait 2.5 s to learn what the one before it has learnt."""

import time

from ingest.publisher import Publisher

#: So many publishes in a row that were not confirmed open the breaker.
FAILURES_TO_OPEN = 3

#: How long a broker may be away before it counts: a channel that is opened anew is back within a moment.
AWAY_S = 0.5

#: While it is open, one callback in this time tries the broker.
PROBE_EVERY_S = 1.0


class Breaker:
    """Watches what becomes of publishes; `confirmations` counts those that the broker confirmed."""

    __slots__ = ("_away_since_s", "_failures", "_next_probe_s", "_transport", "confirmations")

    def __init__(self, transport: Publisher) -> None:
        self._transport = transport
        self._failures = 0
        self._away_since_s: float | None = None
        self._next_probe_s = 0.0
        self.confirmations = 0

    @property
    def is_open(self) -> bool:
        """Whether callbacks go straight to the spool."""
        return self._failures >= FAILURES_TO_OPEN or self._is_away()

    def allows(self) -> bool:
        """Say whether to try the broker with this callback."""
        if self._is_away():
            return False
        if self._failures < FAILURES_TO_OPEN:
            return True
        now_s = time.monotonic()
        if now_s < self._next_probe_s:
            return False
        self._next_probe_s = now_s + PROBE_EVERY_S
        return True

    def confirmed(self) -> None:
        """Take note that the broker confirmed a publish."""
        self.confirmations += 1
        self._failures = 0

    def failed(self) -> None:
        """Take note that a publish was not confirmed."""
        self._failures += 1

    def _is_away(self) -> bool:
        if self._transport.is_ready:
            self._away_since_s = None
            return False
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        return now_s - self._away_since_s >= AWAY_S
