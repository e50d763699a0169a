"""What happened in a world, in order: kept as tuples, told as lines."""

from collections import Counter
from collections.abc import Iterator

from chaos.simulation.virtual_time import Clock

#: Of a long story the beginning is kept; the counts and the digest go on.
MAX_CHAPTERS = 200_000


class Story:
    """The events of one world. `tell` takes who, what and details; all must be the same for the same seed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chapters: list[tuple[float, str, str, tuple[object, ...]]] = []
        self.counts: Counter[str] = Counter()
        self._digest = 0

    def tell(self, who: str, what: str, *details: object) -> None:
        """Note that something happened now."""
        self.counts[what] += 1
        # hash() of strings differs from one interpreter to the next: this is compared within one alone.
        self._digest = hash((self._digest, self._clock.now_s, who, what, details))
        if len(self._chapters) < MAX_CHAPTERS:
            self._chapters.append((self._clock.now_s, who, what, details))

    @property
    def digest(self) -> int:
        """A number that is the same for the same story, within one interpreter."""
        return self._digest

    def lines(self) -> Iterator[str]:
        """Yield the story line by line; times are virtual seconds since the world began."""
        for now_s, who, what, details in self._chapters:
            yield f"{now_s - 1000:12.6f}  {who:<14} {what} {' '.join(map(str, details))}".rstrip()
