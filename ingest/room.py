"""A bound on the memory that requests can take together."""

from typing import Self

from ingest.refusals import Refusal, RefusedError
from telemetry import metrics


class Room:
    """Counts the bytes of all bodies in flight, and refuses more than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0

    def fits(self, size_bytes: int) -> bool:
        """Say whether `size_bytes` more could be taken now."""
        return self._taken_bytes + size_bytes <= self._limit_bytes

    def share(self) -> "Share":
        """Return one request's share, empty as yet: a context manager that gives back what was taken."""
        return Share(self)

    def change(self, size_bytes: int) -> None:
        """Count `size_bytes` more, or less."""
        self._taken_bytes += size_bytes
        metrics.BYTES_IN_FLIGHT.inc(size_bytes)


class Share:
    """What one request has taken of a `Room`, until it is left."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take more; raises `RefusedError` if there is no room for it."""
        if not self._room.fits(size_bytes):
            raise RefusedError(Refusal.NO_ROOM)
        self._taken_bytes += size_bytes
        self._room.change(size_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._room.change(-self._taken_bytes)
