"""The whole: classes are played, their callbacks sent, and what became of each is counted and shown."""

import asyncio
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from yarl import URL

from simulator.classes import DEFAULT_BUCKET, DEFAULT_KINDS, Bucket, ClassKind, SimulatedClass
from simulator.sending import (
    SYSTEM_CLOCK,
    ClassTime,
    Clock,
    Day,
    Outcome,
    Patience,
    Send,
    Sender,
    make_classes,
    paced,
    schedule,
)

if TYPE_CHECKING:
    from rich.console import Console


class SimulationCounts(Struct, frozen=True, kw_only=True):
    """The result in numbers, as `tiw simulate` prints it.

    `sent` and `accepted` count distinct callbacks, that is distinct event_ids, however often each was sent.
    `gave_up` counts those of which no send was ever answered 200: sent = accepted + gave_up. `retries` counts
    further tries over all sends. The percentiles are of the tries that were answered 200, None if there were none.
    """

    sent: int
    accepted: int
    gave_up: int
    retries: int
    p50_ms: float | None
    p99_ms: float | None


class SimulationReport(SimulationCounts, frozen=True, kw_only=True):
    """The counts, and which callbacks are behind them. It holds neither key nor Sign nor address.

    `duplicates` counts sends beyond the first of a callback; `failures` the tries that failed, by reason. `dropped_ids`
    are of callbacks that were lost on their way, as they should be: they were never sent.
    """

    duplicates: int
    elapsed_s: float
    accepted_ids: frozenset[str]
    given_up_ids: frozenset[str]
    failures: Mapping[str, int]
    dropped_ids: frozenset[str] = frozenset()

    @property
    def counts(self) -> SimulationCounts:
        """The counts alone."""
        return SimulationCounts(
            sent=self.sent,
            accepted=self.accepted,
            gave_up=self.gave_up,
            retries=self.retries,
            p50_ms=self.p50_ms,
            p99_ms=self.p99_ms,
        )


class SimulationProgress(Struct, frozen=True, kw_only=True):
    """How far a simulation is. Callbacks are counted as in `SimulationCounts`; `classes_done` ends at `classes`."""

    classes: int
    classes_done: int
    sent: int
    accepted: int
    gave_up: int
    retries: int
    duplicates: int


class Ledger:
    """Counts what was begun and what became of it."""

    def __init__(self, *, classes: int) -> None:
        self._classes = classes
        self._classes_done = 0
        self._accepted: set[str] = set()
        self._given_up: set[str] = set()
        self._dropped: set[str] = set()
        self._begun: set[str] = set()
        self._duplicates = 0
        self._retries = 0
        self._failures: Counter[str] = Counter()
        self._answers_ms = array("d")

    def begin(self, send: Send) -> None:
        """Note that a send begins."""
        self._begun.add(send.callback.event_id)
        self._duplicates += send.copy > 0

    def drop(self, send: Send) -> None:
        """Note that a send is lost; it was not begun."""
        self._dropped.add(send.callback.event_id)
        self._classes_done += send.ends_class

    def settle(self, send: Send, outcome: Outcome) -> None:
        """Note what became of a send that was begun. A copy that is accepted makes up for one that was given up."""
        event_id = send.callback.event_id
        if outcome.accepted:
            self._accepted.add(event_id)
            self._given_up.discard(event_id)
        elif event_id not in self._accepted:
            self._given_up.add(event_id)
        if outcome.answer_ms is not None:
            self._answers_ms.append(outcome.answer_ms)
        self._retries += outcome.retries
        self._failures.update(outcome.failures)
        self._classes_done += send.ends_class

    def progress(self) -> SimulationProgress:
        """Return how far it is now."""
        return SimulationProgress(
            classes=self._classes,
            classes_done=self._classes_done,
            sent=len(self._begun),
            accepted=len(self._accepted),
            gave_up=len(self._given_up),
            retries=self._retries,
            duplicates=self._duplicates,
        )

    def report(self, *, elapsed_s: float) -> SimulationReport:
        """Return the result, once every send that was begun is settled."""
        answers_ms = sorted(self._answers_ms)
        return SimulationReport(
            sent=len(self._begun),
            accepted=len(self._accepted),
            gave_up=len(self._given_up),
            retries=self._retries,
            p50_ms=percentile(answers_ms, 50),
            p99_ms=percentile(answers_ms, 99),
            duplicates=self._duplicates,
            elapsed_s=elapsed_s,
            accepted_ids=frozenset(self._accepted),
            given_up_ids=frozenset(self._given_up),
            failures=dict(self._failures),
            dropped_ids=frozenset(self._dropped),
        )


def percentile(ascending: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least `percent` of all reach or stay below, to 3 digits; None of nothing."""
    if not ascending:
        return None
    return round(ascending[max(0, ceil(len(ascending) * percent / 100) - 1)], 3)


#: Called in the event loop after every send that is settled: it must be quick.
OnProgress: TypeAlias = Callable[[SimulationProgress], None]


class SimulationConfig(Struct, frozen=True, kw_only=True):
    """What to play, to whom and how fast. Raises ValueError, with a sentence for the user, for what cannot be.

    Without a `key` callbacks are not signed. `kinds` take turns, class by class. With a `rate`, in callbacks per
    second, repetitions included, each send begins when it is due, however many are still under way: an open loop,
    as the vendor's is. Without one, `concurrency` senders each take the next callback when they are done with one,
    retries included. `duplicates`, `disorder` and `drop` are shares from 0 to 1; see `schedule`. `day` says when the
    classes are held (else on days of 2025), `bucket` where their files would be.

    The same `seed` gives the same callbacks, byte by byte but for their signatures, and begins them in the same
    order: a receiver that has them already sees repetitions only. Another seed gives other TaskIds. Callbacks that
    are under way at the same moment can still overtake each other; a `concurrency` of 1 rules that out.
    """

    url: str
    sdk_app_id: int
    key: str | None = None
    classes: int = 10
    kinds: tuple[ClassKind, ...] | None = None
    rate: float | None = None
    concurrency: int = 16
    seed: int = 0
    duplicates: float = 0.1
    disorder: float = 0.2
    drop: float = 0.0
    day: Day | None = None
    bucket: Bucket = DEFAULT_BUCKET
    timeout_s: float = 10.0
    retry_delay_s: float = 5.0
    retries: int = 5

    def __post_init__(self) -> None:
        _require(_is_http(self.url), "the address must be a whole http:// or https:// URL")
        _require(self.key is None or self.key != "", "the key must not be empty; leave it out to send unsigned")
        _require(self.kinds is None or len(self.kinds) > 0, "name at least one kind of class")
        _require(self.classes >= 1, "there must be at least 1 class")
        _require(self.rate is None or self.rate > 0, "the rate must be above 0 callbacks per second")
        _require(self.concurrency >= 1, "the concurrency must be at least 1")
        _require(0 <= self.duplicates <= 1, "the share of duplicates must be from 0 to 1")
        _require(0 <= self.disorder <= 1, "the share of disorder must be from 0 to 1")
        _require(0 <= self.drop <= 1, "the share of dropped callbacks must be from 0 to 1")
        _require(self.timeout_s > 0, "the time-out must be above 0 s")
        _require(self.retry_delay_s >= 0 and self.retries >= 0, "retries and their delay must not be negative")

    def __repr__(self) -> str:
        """Hide the key, and the address: its path can hold a token."""
        return f"SimulationConfig(sdk_app_id={self.sdk_app_id}, classes={self.classes}, seed={self.seed}, ...)"


async def simulate(
    config: SimulationConfig,
    *,
    on_progress: OnProgress | None = None,
    clock: Clock = SYSTEM_CLOCK,
    class_time: ClassTime | None = None,
    key: Callable[[], str | None] | None = None,
) -> SimulationReport:
    """Send all callbacks of all classes and return what became of them, when the last one is accepted or given up.

    With a `class_time` each is sent when that clock says it came to be, however many are still under way, whatever
    the rate and the concurrency. All are planned before the first is sent. A `key` is asked at each try for the one to
    sign with, instead of the configured one: it can change meanwhile.

    A receiver that refuses, hangs or is away fails nothing here: it shows in the report. Cancelling ends all sends
    at once, without a report.
    """
    ledger = Ledger(classes=config.classes)
    patience = Patience(timeout_s=config.timeout_s, retry_delay_s=config.retry_delay_s, retries=config.retries)
    began_s = clock.monotonic_s()
    async with Sender(config.url, key=key or config.key, patience=patience, clock=clock) as sender:

        async def send_one(send: Send) -> None:
            if send.is_dropped:
                ledger.drop(send)
            else:
                ledger.begin(send)
                outcome = await sender.send(send.callback, copy=send.copy)
                ledger.settle(send, outcome)
            if on_progress is not None:
                on_progress(ledger.progress())

        async def send_in_turn(sends: Iterator[Send]) -> None:
            for send in sends:
                await send_one(send)

        sends = _schedule(config)
        async with asyncio.TaskGroup() as group:
            if class_time is None and config.rate is None:
                for _ in range(config.concurrency):
                    group.create_task(send_in_turn(sends))
            else:
                async for send in _as_due(sends, rate=config.rate, clock=clock, class_time=class_time):
                    group.create_task(send_one(send))
    return ledger.report(elapsed_s=clock.monotonic_s() - began_s)


async def _as_due(
    sends: Iterator[Send], *, rate: float | None, clock: Clock, class_time: ClassTime | None
) -> AsyncIterator[Send]:
    """Yield each send when it is to begin: by the time of the classes, else by the rate."""
    if class_time is not None:
        for send in sorted(sends, key=lambda send: send.due_at):
            await class_time.wait_until(send.due_at)
            yield send
    elif rate is not None:
        async for send in paced(sends, rate=rate, clock=clock):
            yield send


def _schedule(config: SimulationConfig) -> Iterator[Send]:
    return schedule(
        classes=config.classes,
        kinds=config.kinds or DEFAULT_KINDS,
        sdk_app_id=config.sdk_app_id,
        seed=config.seed,
        duplicates=config.duplicates,
        disorder=config.disorder,
        drop=config.drop,
        day=config.day,
        bucket=config.bucket,
    )


def classes_of(config: SimulationConfig) -> Iterator[SimulatedClass]:
    """Yield the classes whose callbacks `simulate` sends: for a fake of the vendor's API that knows them."""
    return make_classes(
        config.classes,
        sdk_app_id=config.sdk_app_id,
        seed=config.seed,
        kinds=config.kinds or DEFAULT_KINDS,
        day=config.day,
        bucket=config.bucket,
    )


def _is_http(address: str) -> bool:
    try:
        url = URL(address)
    except ValueError:
        return False
    return url.scheme in {"http", "https"} and bool(url.host)


def _require(fulfilled: bool, sentence: str) -> None:
    if not fulfilled:
        raise ValueError(sentence)


@contextmanager
def show_progress(console: "Console | None" = None) -> Iterator[OnProgress]:
    """Draw a bar while the block runs and give what moves it, for `simulate(on_progress=...)`.

    By default on standard error, so that standard output stays for results. Off a terminal nothing is drawn.
    """
    # Whoever draws nothing, a test of load for one, does without rich.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn("classes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("classes", total=None, counts="")

        def move(progress: SimulationProgress) -> None:
            bar.update(task, total=progress.classes, completed=progress.classes_done, counts=_counts(progress))

        yield move


def _counts(progress: SimulationProgress) -> str:
    given_up = f", [red]{progress.gave_up} given up[/red]" if progress.gave_up else ""
    return f"{progress.accepted} of {progress.sent} accepted, {progress.retries} retries{given_up}"
