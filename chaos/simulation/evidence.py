"""What was seen of a world, in order, from outside and in the product's log."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from chaos.checking.evidence import ACCEPTED, Evidence, Terms
from chaos.evidence import Effect, Fault, GaveUp, Outcome, Sent, Tried, content_digest
from chaos.simulation.processes import PROCESS
from chaos.simulation.virtual_time import Clock
from simulator import Callback, render
from workers import Context

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


class Notes:
    """What is noted of one world: the records that real runs write to files, for the same checker.

    Answers are noted where they leave, not where they arrive. `errors` are those that no code expected.
    """

    def __init__(self, clock: Clock, story: Story) -> None:
        self._clock = clock
        self._story = story
        self._sent: list[Sent] = []
        self._tries: list[Tried] = []
        self._gave_up: list[GaveUp] = []
        self._faults: list[Fault] = []
        self._effects: list[Effect] = []
        self.errors: list[str] = []

    @property
    def now_us(self) -> int:
        """Microseconds of this world's monotonic clock."""
        return round(self._clock.now_s * 1e6)

    @property
    def genuine(self) -> int:
        """How many callbacks were sent by who may."""
        return sum(not one.forged for one in self._sent)

    @property
    def accepted(self) -> int:
        """How many callbacks were answered 200."""
        return len({tried.event_id for tried in self._tries if tried.status == ACCEPTED})

    def sends(self, callback: Callback, *, forged: str = "") -> None:
        """Note that a callback is about to be sent."""
        self._sent.append(
            Sent(
                event_id=callback.event_id,
                event_type=callback.event_type,
                digest=content_digest(render(callback)),
                at_us=self.now_us,
                forged=forged,
            )
        )

    def answered(self, who: str, event_id: str, status: int, took_s: float, *, was_stopped: bool) -> None:
        """Note that a callback's answer left its ingest node."""
        self._story.tell(who, f"answered {status}", event_id[:8], f"{took_s:.3f} s")
        took_us = round(took_s * 1e6)
        self._tries.append(
            Tried(
                event_id=event_id,
                attempt=1,
                began_us=self.now_us - took_us,
                ended_us=self.now_us,
                status=status,
                # A node that was stopped by a signal cannot keep to its time; its sender has hung up.
                stalled_us=took_us if was_stopped else 0,
            )
        )

    def gave_up(self, event_id: str) -> None:
        """Note that the sender will not try again."""
        self._story.tell("vendor", "gave up", event_id[:8])
        self._gave_up.append(GaveUp(event_id=event_id, at_us=self.now_us))

    def handled(self, who: str, ctx: Context, *, began_us: int, what: str) -> None:
        """Note that a handler, called at `began_us`, is done: `what` says whether it had an effect or dropped it."""
        self._story.tell(who, what, ctx.consumer, ctx.event_id[:8])
        self._effects.append(
            Effect(
                consumer=ctx.consumer,
                event_id=ctx.event_id,
                sha256=hashlib.sha256(ctx.body).hexdigest(),
                attempt=ctx.attempt,
                pid=0,
                began_us=began_us,
                began_wall_us=began_us + self._clock.time_ns() // 1000 - self.now_us,
            )
        )

    def disturbed(self, kind: str, *, repeats: int = 1, steps_clock: bool = False) -> None:
        """Note what can let an effect happen again, such as the death of a worker, or what makes clocks wrong."""
        self._faults.append(
            Fault(
                number=len(self._faults),
                kind=kind,
                victim="world",
                began_us=self.now_us,
                # A clock that was set stays as it is.
                ended_us=None if steps_clock else self.now_us,
                steps_clock=steps_clock,
                repeats=repeats,
            )
        )

    def failed(self, who: str, what: str) -> None:
        """Note an error that the code did not expect."""
        self._story.tell(who, "error", what)
        self.errors.append(f"{who}: {what}")

    def evidence(self, terms: Terms, outcome: Outcome) -> Evidence:
        """Return all of it, as the checker takes it."""
        return Evidence(
            terms=terms,
            sent=self._sent,
            tries=self._tries,
            gave_up=self._gave_up,
            faults=self._faults,
            effects=self._effects,
            outcome=outcome,
        )


_ERROR = 40

#: What is said of a disk that fails, and rightly so.
_EXPECTED = frozenset({"spool_not_ready", "spool_file_failed", "spool_file_not_read"})


@contextmanager
def silence(notes: Notes) -> Iterator[None]:
    """Hand errors to `notes` and drop the rest."""

    def note(_: Any, __: str, entry: Any) -> Any:
        process = PROCESS.get()
        if entry["event"] not in _EXPECTED and (process is None or process.is_running):
            error = entry.get("exc_info")
            what = f"{entry['event']}{f' {error!r}' if isinstance(error, BaseException) else ''}"
            notes.failed("world" if process is None else process.name, f"logged an error: {what}")
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
