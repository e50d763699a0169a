"""What was seen of a world, in order, from outside and in the product's log."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from chaos.simulation.processes import PROCESS
from chaos.simulation.virtual_time import Clock
from simulator import Callback

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


#: The sender hangs up after 10 s; an answer later than this may come too late.
LATEST_ANSWER_S = 8.0


class Evidence:
    """Notes of one world. Keys of `effects` are (consumer, event_id)."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.sent: dict[str, Callback] = {}
        self.forged: set[str] = set()
        self.accepted: set[str] = set()
        self.given_up: set[str] = set()
        self.late: list[str] = []
        self.errors: list[str] = []
        self.effects: Counter[tuple[str, str]] = Counter()
        self.dropped: set[tuple[str, str]] = set()
        #: What can make a consumer's effect happen again: see `invariants`.
        self.disturbances = 0

    def answered(self, who: str, event_id: str, status: int, took_s: float, *, was_stopped: bool) -> None:
        """Note that a callback's answer left its ingest node."""
        self._story.tell(who, f"answered {status}", event_id[:8], f"{took_s:.3f} s")
        if status == 200:  # noqa: PLR2004 - the one that means: kept
            self.accepted.add(event_id)
        # A node that was stopped by a signal cannot keep to its time; its sender has hung up.
        if took_s > LATEST_ANSWER_S and not was_stopped:
            self.late.append(f"{event_id} was answered {status} after {took_s:.1f} s")

    def took_effect(self, who: str, consumer: str, event_id: str) -> None:
        """Note an effect outside the store."""
        self.effects[consumer, event_id] += 1
        self._story.tell(who, "effect", consumer, event_id[:8])

    def disturbed(self) -> None:
        """Note that a worker has died or was stopped, or that the store was away."""
        self.disturbances += 1

    def failed(self, who: str, what: str) -> None:
        """Note an error that the code did not expect."""
        self._story.tell(who, "error", what)
        self.errors.append(f"{who}: {what}")


_ERROR = 40

#: What is said of a disk that fails, and rightly so.
_EXPECTED = frozenset({"spool_not_ready", "spool_file_failed", "spool_file_not_read"})


@contextmanager
def silence(evidence: Evidence) -> Iterator[None]:
    """Hand errors to `evidence` and drop the rest."""

    def note(_: Any, __: str, entry: Any) -> Any:
        process = PROCESS.get()
        if entry["event"] not in _EXPECTED and (process is None or process.is_running):
            error = entry.get("exc_info")
            what = f"{entry['event']}{f' {error!r}' if isinstance(error, BaseException) else ''}"
            evidence.failed("world" if process is None else process.name, f"logged an error: {what}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(_ERROR),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
