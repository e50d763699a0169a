"""A bound on how many callbacks can be in flight together, and on the memory they take."""

from typing import Self

from ingest.refusals import Refusal, RefusedError


class Room:
    """Counts the callbacks in flight and the bytes of their bodies; `limit` and `limit_bytes` bound them."""

    __slots__ = ("limit", "limit_bytes", "taken", "taken_bytes")

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.taken = 0
        self.taken_bytes = 0

    def fits(self, size_bytes: int) -> bool:
        """Say whether one more callback of `size_bytes` could be taken now."""
        return self.taken < self.limit and self.taken_bytes + size_bytes <= self.limit_bytes


class Share:
    """What one callback takes of a `Room`: a context manager that gives all of it back.

    Making one counts the callback; raises `RefusedError` if there are too many.
    """

    __slots__ = ("_room", "_taken_bytes")

    def __init__(self, room: Room) -> None:
        if room.taken >= room.limit:
            raise RefusedError(Refusal.NO_ROOM)
        room.taken += 1
        self._room = room
        self._taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Take more bytes; raises `RefusedError` if there is no room for them."""
        room = self._room
        if room.taken_bytes + size_bytes > room.limit_bytes:
            raise RefusedError(Refusal.NO_ROOM)
        room.taken_bytes += size_bytes
        self._taken_bytes += size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._room.taken -= 1
        self._room.taken_bytes -= self._taken_bytes
