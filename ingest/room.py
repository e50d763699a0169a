"""A bound on how many requests can be in flight together, and on the memory they take."""

from typing import Self

from ingest.refusals import Refusal, RefusedError


class Room:
    """Counts the requests in flight and the bytes of their bodies, and refuses more than its limits."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self.taken = 0
        self.taken_bytes = 0

    def fits(self, size_bytes: int) -> bool:
        """Say whether one more request of `size_bytes` could be taken now."""
        return self.taken < self._limit and self.taken_bytes + size_bytes <= self._limit_bytes

    def share(self) -> "Share":
        """Return one request's share, empty as yet: a context manager that gives back what was taken.

        Entering raises `RefusedError` if there are too many.
        """
        return Share(self)

    def take_bytes(self, size_bytes: int) -> None:
        """Take more for a request that is counted; raises `RefusedError` if there is no room for it."""
        if self.taken_bytes + size_bytes > self._limit_bytes:
            raise RefusedError(Refusal.NO_ROOM)
        self.taken_bytes += size_bytes

    def enter(self) -> None:
        """Count one more request; raises `RefusedError` if there are too many."""
        if self.taken >= self._limit:
            raise RefusedError(Refusal.NO_ROOM)
        self.taken += 1

    def leave(self, size_bytes: int) -> None:
        """Count one request less, and the bytes it had taken."""
        self.taken -= 1
        self.taken_bytes -= size_bytes


class Share:
    """What one request has taken of a `Room`, until it is left."""

    __slots__ = ("_room", "_taken_bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take more; raises `RefusedError` if there is no room for it."""
        self._room.take_bytes(size_bytes)
        self._taken_bytes += size_bytes

    def __enter__(self) -> Self:
        self._room.enter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._room.leave(self._taken_bytes)
