"""What goes on, looked at while somebody watches: each part alone, within its time, and told to everybody at once.

However many look, the processes, the broker and the store are asked once. What a part answered last stays, and says
since when it is no longer known: an old number never passes for one of now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

import structlog
from msgspec import Struct, structs

from broker import BUILT_IN_CONSUMERS, QueueState, Transport
from console.peers import PeerMetrics, Peers
from console.rates import Rates
from console.rendering import attempt
from console.requests import Language, Unknown
from store import (
    ArchiveCounts,
    ExpiringFile,
    ListedRecording,
    OverdueDelivery,
    Overview,
    ReconciledApp,
    RecordingFilter,
    RecordingStatus,
    Store,
    count_archive,
    count_overview,
    find_expiring_files,
    find_reconciled_apps,
    list_overdue,
    search_recordings,
)
from workers import known_consumers

#: How often each part is asked, and how long it may take. RabbitMQ writes a line into its log for each connection, and
#: counting costs the store some reading.
PEERS_EVERY_S: Final = 2.0
BROKER_EVERY_S: Final = 5.0
STORE_EVERY_S: Final = 5.0
TIMEOUT_S: Final = 5.0

#: The store has this time to say which consumers there are; then those are looked at that were known last.
NAMES_TIMEOUT_S: Final = 2.0

#: What was found longer ago, and not found anew since, is old: nobody answered, or this process stood still.
OLD_AFTER_S: Final = 15.0

#: So long after a page was shown it is looked on, for whoever loads it again without scripts.
WATCHED_FOR_S: Final = 10.0

#: A page waits so long for what is not known yet.
PATIENCE_S: Final = 1.0

#: Everybody is told at most so often, and at least so often: what became old has to say so.
TOLD_EVERY_S: Final = 1.0
TOLD_AGAIN_S: Final = 5.0

#: More do not get a live page.
MOST_VIEWERS: Final = 500

#: Recordings with which something is wrong are told of for so long, in which they can be made again:
#: https://cloud.tencent.com/document/product/1137/49831
RECENT_S: Final = 3 * 86_400.0

#: No more of one kind are asked for.
_SOME: Final = 20

T = TypeVar("T")

_log = structlog.get_logger()


class Known(Struct, Generic[T], frozen=True, kw_only=True):
    """What was found out last, at `at_s`; with a `reason`, why it is not known any more, since `since_s`.

    Times are Unix seconds. Both are empty before anything was asked.
    """

    value: T | None = None
    at_s: float | None = None
    reason: str = ""
    since_s: float | None = None

    @property
    def is_current(self) -> bool:
        """Whether the value is that of now."""
        return self.value is not None and not self.reason

    def found(self, value: T, at_s: float) -> "Known[T]":
        """Return what is known after an answer."""
        return Known(value=value, at_s=at_s)

    def failed(self, reason: str, at_s: float) -> "Known[T]":
        """Return what is known after a question without an answer."""
        return structs.replace(self, reason=reason, since_s=self.since_s if self.reason else at_s)

    def seen_at(self, now_s: float) -> "Known[T]":
        """Return this as it is to be shown: what is too old is not current, whoever is to blame."""
        if self.reason or self.at_s is None or now_s - self.at_s <= OLD_AFTER_S:
            return self
        return self.failed("no answer came", self.at_s)


class BrokerSeen(Struct, frozen=True, kw_only=True):
    """What waits in the queues. `retrying`: of all consumers together, where the broker does not tell whose.

    `still_since_s` says for each consumer with waiting events since when none of them was taken, in Unix seconds.
    """

    states: tuple[QueueState, ...]
    retrying: int | None = None
    still_since_s: dict[str, float] = {}


class StoreSeen(Struct, frozen=True, kw_only=True):
    """What the store tells. `expiring` is the file that the vendor deletes next and that is not archived.

    `contradicted`: so many recordings of the last three days, at most some; `failed` and `paused` are those, the latest
    first, without tests.
    """

    consumers: dict[str, tuple[str, ...]]
    overview: Overview
    overdue: tuple[OverdueDelivery, ...]
    archive: ArchiveCounts
    expiring: ExpiringFile | None
    apps: tuple[ReconciledApp, ...]
    contradicted: int
    failed: tuple[ListedRecording, ...] = ()
    paused: tuple[ListedRecording, ...] = ()


class Situation(Struct, frozen=True, kw_only=True):
    """What is known at `at_s`, in Unix seconds. `peers` tells of every process that is asked, answering or not."""

    at_s: float
    peers: Known[tuple[PeerMetrics, ...]]
    broker: Known[BrokerSeen]
    store: Known[StoreSeen]
    rates: Rates
    rates_at_s: float
    away_since_s: dict[str, float] = {}


#: Makes the sections of the page by their names.
Render = Callable[[Situation, Language], Mapping[str, str]]


class Viewer:
    """Somebody with a live page. Who reads slowly gets the newest alone."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._newest: bytes | None = None
        self._woken = asyncio.Event()

    def give(self, frame: bytes) -> None:
        """Leave something to be sent, in place of what was not sent yet."""
        self._newest = frame
        self._woken.set()

    def wake(self) -> None:
        """Let `take` return, also with nothing."""
        self._woken.set()

    async def take(self, *, within_s: float) -> bytes | None:
        """Return what is to be sent, once there is something; None if there is nothing in this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        self._woken.clear()
        newest, self._newest = self._newest, None
        return newest


class _Part(Generic[T]):
    """One of those that are asked."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[T]], *, every_s: float) -> None:
        self.name = name
        self.ask = ask
        self.every_s = every_s
        self.known: Known[T] = Known()
        self.answered_s = float("-inf")


class Live:
    """Looks at everything while somebody watches, and tells those who do; `render` makes the sections of the page.

    The times that are shown are those of `clock_s`, lengths of time those of `monotonic_s`.
    """

    def __init__(
        self,
        *,
        store: Store,
        transport: Transport,
        peers: Peers,
        render: Render,
        clock_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._transport = transport
        self._asked = peers
        self._render = render
        self._clock_s = clock_s
        self._monotonic_s = monotonic_s
        self._peers = _Part("processes", self._ask_peers, every_s=PEERS_EVERY_S)
        self._broker = _Part("broker", self._ask_broker, every_s=BROKER_EVERY_S)
        self._parts: tuple[_Part[Any], ...] = (
            self._peers,
            self._broker,
            _Part("store", self._ask_store, every_s=STORE_EVERY_S),
        )
        self._rates = Rates()
        self._rates_at_s = 0.0
        self._away_since_s: dict[str, float] = {}
        self._still_since_s: dict[str, tuple[int, float]] = {}
        #: Consumers, as the store knew them last.
        self._names = [consumer.consumer for consumer in BUILT_IN_CONSUMERS]
        self._viewers: set[Viewer] = set()
        self._seen_s = float("-inf")
        self._changed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._number = 0
        self._frames: dict[Language, bytes] = {}
        self.is_closed = False

    @property
    def viewers(self) -> int:
        """How many have a live page."""
        return len(self._viewers)

    @property
    def is_looking(self) -> bool:
        """Whether anything is asked: that somebody watches, or did a moment ago."""
        return any(not task.done() for task in self._tasks.values())

    async def look(self) -> Situation:
        """Return what is known now; what is not yet, is waited for a little."""
        self._seen_s = self._monotonic_s()
        self._begin()
        deadline_s = self._monotonic_s() + PATIENCE_S
        while (left_s := deadline_s - self._monotonic_s()) > 0 and not all(
            self._is_fresh(part) for part in self._parts
        ):
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
        return self.situation()

    def situation(self) -> Situation:
        """Return what is known now, without asking anybody."""
        now_s = self._clock_s()
        peers, broker, store = (part.known.seen_at(now_s) for part in self._parts)
        return Situation(
            at_s=now_s,
            peers=peers,
            broker=broker,
            store=store,
            rates=self._rates,
            rates_at_s=self._rates_at_s,
            away_since_s=dict(self._away_since_s),
        )

    def join(self, language: Language) -> Viewer | None:
        """Return a new viewer, who gets what is known at once; None if there are too many."""
        if self.is_closed or len(self._viewers) >= MOST_VIEWERS:
            return None
        viewer = Viewer(language)
        self._viewers.add(viewer)
        self._begin()
        if language in self._frames:
            viewer.give(self._frames[language])
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Tell a viewer nothing more."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._frames.clear()

    async def close(self) -> None:
        """Ask nobody any more, and let every viewer go."""
        self.is_closed = True
        for viewer in self._viewers:
            viewer.wake()
        running = [task for task in self._tasks.values() if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _is_watched(self) -> bool:
        return bool(self._viewers) or self._monotonic_s() - self._seen_s < WATCHED_FOR_S

    def _is_fresh(self, part: _Part[Any]) -> bool:
        return self._monotonic_s() - part.answered_s <= part.every_s

    def _begin(self) -> None:
        if self.is_closed:
            return
        if not self.is_looking:
            # Nobody looked meanwhile: whether anything was taken is not known.
            self._still_since_s.clear()
        # Each ends by itself, a slow one later than the others.
        for part in self._parts:
            self._start(f"console asks {part.name}", partial(self._ask_while_watched, part))
        self._start("console tells", self._tell_while_watched)

    def _start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(work(), name=name)

    async def _ask_while_watched(self, part: _Part[Any]) -> None:
        while self._is_watched():
            began_s = self._monotonic_s()
            try:
                answer = await attempt(part.ask(), timeout_s=TIMEOUT_S)
            except Exception:  # noqa: BLE001 - logged; the other parts are shown all the same
                _log.exception("console_part_failed", part=part.name)
                answer = Unknown(reason="this went wrong here: see console_part_failed in the console's log")
            now_s = self._clock_s()
            if isinstance(answer, Unknown):
                part.known = part.known.failed(answer.reason, now_s)
            else:
                part.known = part.known.found(answer, now_s)
            part.answered_s = self._monotonic_s()
            self._changed.set()
            await asyncio.sleep(max(0.1, part.every_s - (part.answered_s - began_s)))

    async def _ask_peers(self) -> tuple[PeerMetrics, ...]:
        found = tuple(await self._asked.metrics())
        self._rates_at_s = self._monotonic_s()
        self._rates.look(self._rates_at_s, found)
        now_s = self._clock_s()
        self._away_since_s = {
            peer.address: self._away_since_s.get(peer.address, now_s)
            for peer in found
            if not peer.ok and not peer.is_absent
        }
        return found

    async def _ask_broker(self) -> BrokerSeen:
        known = await attempt(known_consumers(self._store), timeout_s=NAMES_TIMEOUT_S)
        if not isinstance(known, Unknown):
            self._names = list(known)
        states = tuple(state for state in await self._transport.inspect(self._names) if state.exists)
        tells = all(state.retrying is not None for state in states)
        retrying = None if tells else await self._transport.count_retrying()
        return BrokerSeen(states=states, retrying=retrying, still_since_s=self._note_progress(states))

    def _note_progress(self, states: Sequence[QueueState]) -> dict[str, float]:
        """Return since when nothing was taken out of each queue in which something waits."""
        now_s = self._clock_s()
        still: dict[str, tuple[int, float]] = {}
        for state in states:
            ready, since_s = self._still_since_s.get(state.consumer, (0, now_s))
            if state.ready:
                still[state.consumer] = (state.ready, since_s if 0 < ready <= state.ready else now_s)
        self._still_since_s = still
        return {consumer: since_s for consumer, (_, since_s) in still.items()}

    async def _ask_store(self) -> StoreSeen:
        from_us = round((self._clock_s() - RECENT_S) * 1_000_000)
        expiring = await find_expiring_files(self._store, within_s=RECENT_S * 10, limit=1)
        return StoreSeen(
            consumers=await known_consumers(self._store),
            overview=await count_overview(self._store),
            overdue=tuple(await list_overdue(self._store)),
            archive=await count_archive(self._store),
            expiring=expiring[0] if expiring else None,
            apps=tuple((await find_reconciled_apps(self._store)).values()),
            contradicted=len(await self._find(RecordingFilter(contradicted=True, from_us=from_us))),
            failed=await self._find(RecordingFilter(failed=True, from_us=from_us)),
            paused=await self._find(RecordingFilter(status=RecordingStatus.PAUSED, from_us=from_us)),
        )

    async def _find(self, chosen: RecordingFilter) -> tuple[ListedRecording, ...]:
        found = await search_recordings(self._store, chosen, limit=_SOME)
        return tuple(listed for listed in found.rows if not listed.is_test)

    async def _tell_while_watched(self) -> None:
        while self._is_watched():
            if self._viewers:
                self._tell()
            self._changed.clear()
            await asyncio.sleep(TOLD_EVERY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(TOLD_AGAIN_S - TOLD_EVERY_S):
                    await self._changed.wait()

    def _tell(self) -> None:
        situation = self.situation()
        self._number += 1
        for language in {viewer.language for viewer in self._viewers}:
            try:
                sections = self._render(situation, language)
            except Exception:  # noqa: BLE001 - logged; the next one may be made
                _log.exception("console_live_failed")
                return
            self._frames[language] = frame_of(sections, number=self._number)
        for viewer in self._viewers:
            viewer.give(self._frames[viewer.language])


def frame_of(sections: Mapping[str, str], *, number: int) -> bytes:
    """Return sections as server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    events = []
    for name, section in sections.items():
        # In what a line break could be, an event would end.
        lines = section.replace("\r", "").split("\n")
        data = "\n".join(f"data: {line.rstrip()}" for line in lines if line.strip())
        events.append(f"id: {number}\nevent: {name}\n{data or 'data:'}\n\n")
    return "".join(events).encode()
