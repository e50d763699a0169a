"""The whole: classes are played, their callbacks sent, and what became of each is counted."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeAlias

from msgspec import Struct
from yarl import URL

from simulator.classes import DEFAULT_KINDS, ClassKind
from simulator.clock import SYSTEM_CLOCK, Clock
from simulator.ledger import Ledger
from simulator.pacing import paced
from simulator.report import SimulationProgress, SimulationReport
from simulator.scheduling import Send, schedule
from simulator.sender import Patience, Sender

#: Called in the event loop after every send that is settled: it must be quick.
OnProgress: TypeAlias = Callable[[SimulationProgress], None]


class SimulationConfig(Struct, frozen=True, kw_only=True):
    """What to play, to whom and how fast. Raises ValueError, with a sentence for the user, for what cannot be.

    Without a `key` callbacks are not signed. `kinds` take turns, class by class. With a `rate`, in callbacks per
    second, repetitions included, each send begins when it is due, however many are still under way: an open loop,
    as the vendor's is. Without one, `concurrency` senders each take the next callback when they are done with one,
    retries included. `duplicates` and `disorder` are shares from 0 to 1; see `schedule`.

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
        _require(self.timeout_s > 0, "the time-out must be above 0 s")
        _require(self.retry_delay_s >= 0 and self.retries >= 0, "retries and their delay must not be negative")

    def __repr__(self) -> str:
        """Hide the key, and the address: its path can hold a token."""
        return f"SimulationConfig(sdk_app_id={self.sdk_app_id}, classes={self.classes}, seed={self.seed}, ...)"


async def simulate(
    config: SimulationConfig, *, on_progress: OnProgress | None = None, clock: Clock = SYSTEM_CLOCK
) -> SimulationReport:
    """Send all callbacks of all classes and return what became of them, when the last one is accepted or given up.

    A receiver that refuses, hangs or is away fails nothing here: it shows in the report. Cancelling ends all sends
    at once, without a report.
    """
    ledger = Ledger(classes=config.classes)
    patience = Patience(timeout_s=config.timeout_s, retry_delay_s=config.retry_delay_s, retries=config.retries)
    began_s = clock.monotonic_s()
    async with Sender(config.url, key=config.key, patience=patience, clock=clock) as sender:

        async def send_one(send: Send) -> None:
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
            if config.rate is None:
                for _ in range(config.concurrency):
                    group.create_task(send_in_turn(sends))
            else:
                async for send in paced(sends, rate=config.rate, clock=clock):
                    group.create_task(send_one(send))
    return ledger.report(elapsed_s=clock.monotonic_s() - began_s)


def _schedule(config: SimulationConfig) -> Iterator[Send]:
    return schedule(
        classes=config.classes,
        kinds=config.kinds or DEFAULT_KINDS,
        sdk_app_id=config.sdk_app_id,
        seed=config.seed,
        duplicates=config.duplicates,
        disorder=config.disorder,
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
