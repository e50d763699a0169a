"""How many deliveries a worker takes at once: enough to keep its handler busy, and not more than it can hold."""

from workers.consumer import Consumer

#: The most deliveries at once, unless a single call takes more.
MAX_DELIVERIES = 2000

#: About the most bytes of bodies at once: a queue of large ones is taken in smaller portions.
MAX_BYTES = 64 * 1024 * 1024

#: What the largest body is remembered by: after 1,000 smaller ones it counts for about a third.
_FADING = 0.999


class Portions:
    """The prefetch of one consumer, by the size of the bodies that come."""

    def __init__(self, consumer: Consumer) -> None:
        calls, batch = consumer.concurrency, consumer.batch or 1
        self._least = 2 * calls
        self._most = min(2 * calls * batch, max(MAX_DELIVERIES, 2 * batch))
        self._largest_bytes = 1.0
        self._sized_for_bytes = 1

    @property
    def prefetch(self) -> int:
        """The deliveries of all calls, and as many waiting; fewer if they are large, but as many as there are calls."""
        return max(self._least, min(self._most, MAX_BYTES // self._sized_for_bytes))

    def note(self, size_bytes: int) -> bool:
        """Take the size of a body into account; True if `prefetch` may be another now."""
        self._largest_bytes = largest_bytes = max(size_bytes, self._largest_bytes * _FADING)
        if self._sized_for_bytes / 4 < largest_bytes <= self._sized_for_bytes:
            return False
        # Up to the next power of two, so that it seldom changes: changing it costs a round trip.
        self._sized_for_bytes = 1 << (int(largest_bytes) - 1).bit_length() if largest_bytes > 1 else 1
        return True
