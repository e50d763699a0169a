"""How often this process lost its connection while it held an event, and lived on.

The broker counts each return alike, whether the worker died or its connection did. A network that comes and goes must
not make a dead letter of an event that harms nobody.
"""

from collections.abc import Iterable

#: More are not remembered; the oldest are forgotten, and count as crashes again.
MOST = 10_000


class Survivals:
    """Counts by event_id, for one queue; an event that is settled is forgotten."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def lost(self, event_ids: Iterable[str]) -> None:
        """Take note that the connection was lost before these events were settled."""
        for event_id in event_ids:
            # Anew, so that it is the youngest.
            self._counts[event_id] = self._counts.pop(event_id, 0) + 1
        while len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]

    def settled(self, event_id: str) -> None:
        """Forget an event: what was published of it anew is counted by the broker anew."""
        if self._counts:
            self._counts.pop(event_id, None)

    def count(self, event_id: str) -> int:
        """Return how many of the returns of an event this process has survived."""
        return self._counts.get(event_id, 0)
