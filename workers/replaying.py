"""Give events to a consumer again: those that it gave up on, and those that are kept.

Beginning anew costs nothing that was done: dead letters that went are marked as they go, and who stops in between says
how far it came. An event can come twice, as any can: if two people replay it at the same moment, or if what stopped it
was the broker's late answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final

from msgspec import Struct, structs

from broker import BrokerError, Message, Transport
from schemas import UNRECOGNIZED
from store import (
    DeadLetter,
    KeptRow,
    Store,
    count_dead_letters,
    forget,
    mark_replayed,
    pages_for_replay,
    pages_of_dead_letters,
    purge_dead_letters,
)

#: Without one, events go as fast as the broker takes them.
NO_RATE: Final = 0.0


class LetterSelection(Struct, frozen=True, kw_only=True):
    """Which of the dead letters that were not replayed: all that is given must be so.

    `reason` is the first line of the reason, or its first 200 characters; or what several have in common, see
    `pattern_of`. `until_us`, in microseconds since the Unix epoch, is when the letters failed at the latest: what
    somebody saw, and not what came since.
    """

    consumer: str | None = None
    reason: str | None = None
    event_id: str | None = None
    until_us: int | None = None


class EventSelection(Struct, frozen=True, kw_only=True):
    """Which of the kept events with these routing keys: all that is given must be so."""

    routing_keys: Collection[str]
    since_us: int | None = None
    task_id: str | None = None
    event_id: str | None = None


class Affected(Struct, frozen=True, kw_only=True):
    """What a replay would give to one consumer, whether that has a queue, and how many processes consume it.

    None: the broker does not tell now.
    """

    consumer: str
    count: int
    has_queue: bool | None = None
    connected: int | None = None


class Replayed(Struct, frozen=True, kw_only=True):
    """How many events went, and what came in between.

    `without_queue` are the consumers whose letters were left because they have no queue; `stopped` is why it ended
    early, in the broker's words; `is_more`: the time was up, and there may be more of them.
    """

    count: int
    without_queue: tuple[str, ...] = ()
    stopped: str = ""
    is_more: bool = False


class ReplayedDeadLetters(Struct, frozen=True, kw_only=True):
    """How many dead letters went back to their consumers; after a dry run none of those that match."""

    replayed: int
    matching: int


class PurgedDeadLetters(Struct, frozen=True, kw_only=True):
    """How many dead letters were deleted; after a dry run none of those that match."""

    purged: int
    matching: int


class ReplayedEvents(Struct, frozen=True, kw_only=True):
    """How many kept events went to a consumer, of those that matched; after a dry run none."""

    consumer: str
    replayed: int
    matching: int


async def count_letters(store: Store, selection: LetterSelection) -> dict[str, int]:
    """Return how many dead letters are selected, by consumer. Raises `StoreError`."""
    return await count_dead_letters(store, **structs.asdict(selection))


async def purge_letters(store: Store, selection: LetterSelection) -> int:
    """Delete the selected dead letters for good; return how many. Raises `StoreError`."""
    return await purge_dead_letters(store, **structs.asdict(selection))


async def preview_letters(store: Store, transport: Transport, selection: LetterSelection) -> list[Affected]:
    """Return what `replay_letters` would do, by consumer; nothing is changed. Raises `StoreError`."""
    counts = await count_letters(store, selection)
    return await _affected(transport, counts)


async def preview_event(transport: Transport, consumer: str) -> Affected:
    """Return what the replay of one event would meet."""
    (affected,) = await _affected(transport, {consumer: 1})
    return affected


async def _affected(transport: Transport, counts: dict[str, int]) -> list[Affected]:
    names = sorted(counts)
    try:
        states = await transport.inspect(names) if names and transport.is_ready else None
    except BrokerError:
        states = None
    if states is None:
        return [Affected(consumer=name, count=counts[name]) for name in names]
    return [
        Affected(
            consumer=state.consumer, count=counts[state.consumer], has_queue=state.exists, connected=state.connected
        )
        for state in states
    ]


async def replay_letters(
    store: Store,
    transport: Transport,
    selection: LetterSelection,
    *,
    on_each: Callable[[int], None] | None = None,
    within_s: float | None = None,
    replay_at_us: int | None = None,
) -> Replayed:
    """Bring dead letters back to their consumers as first attempts, and mark those that went as replayed.

    Those of a consumer without a queue stay as they are. `on_each` is told how many went so far; after `within_s` no
    more are begun. By `replay_at_us` the store tells later what became of them: see `count_replayed`. Raises
    `StoreError`; not what the broker says, which stops it: see `Replayed`.
    """
    began_s = time.monotonic()
    has_queue: dict[str, bool] = {}
    count, stopped, is_more = 0, "", False
    async for page in pages_of_dead_letters(store, **structs.asdict(selection)):
        if within_s is not None and time.monotonic() - began_s > within_s:
            is_more = True
            break
        try:
            for name in {letter.consumer for letter in page} - set(has_queue):
                (state,) = await transport.inspect([name])
                has_queue[name] = state.exists
        except BrokerError as error:
            stopped = str(error)
            break
        going = [one for one in page if has_queue[one.consumer]]
        sent, stopped = await _send_letters(store, transport, going, replay_at_us=replay_at_us)
        count += sent
        if on_each is not None and sent:
            on_each(count)
        if stopped:
            break
    without_queue = tuple(sorted(name for name, exists in has_queue.items() if not exists))
    return Replayed(count=count, without_queue=without_queue, stopped=stopped, is_more=is_more)


async def _send_letters(
    store: Store, transport: Transport, letters: list[DeadLetter], *, replay_at_us: int | None
) -> tuple[int, str]:
    """Send letters at once, as the broker's confirms take longer than all else; return how many went, and the error."""
    for consumer in {letter.consumer for letter in letters}:
        await forget(store, consumer=consumer, event_ids=[one.event_id for one in letters if one.consumer == consumer])
    ended = await asyncio.gather(
        *(transport.send(letter.consumer, _message(letter)) for letter in letters), return_exceptions=True
    )
    sent = [letter for letter, error in zip(letters, ended, strict=True) if error is None]
    await mark_replayed(store, sent, replay_at_us=replay_at_us)
    stopped = ""
    for error in ended:
        if isinstance(error, BrokerError):
            stopped = str(error)
        elif error is not None:
            raise error
    return len(sent), stopped


async def count_events(store: Store, selection: EventSelection) -> int:
    """Return how many kept events are selected. Raises `StoreError`."""
    count = 0
    async for page in _pages(store, selection):
        count += len(page)
    return count


async def replay_events(
    store: Store,
    transport: Transport,
    consumer: str,
    selection: EventSelection,
    *,
    rate: float = NO_RATE,
    on_each: Callable[[int], None] | None = None,
) -> Replayed:
    """Bring kept events to a consumer again, as if they were new to it, at most `rate` a second.

    It must have a queue: what is sent to it would be an orphan. `on_each` is told how many went so far. Raises
    `StoreError`; not what the broker says, which stops it.
    """
    count = 0
    due_s = time.monotonic()
    async for page in _pages(store, selection):
        await forget(store, consumer=consumer, event_ids=[kept.event_id for kept in page])
        for kept in page:
            try:
                await transport.send(consumer, _message(kept))
            except BrokerError as error:
                return Replayed(count=count, stopped=str(error))
            count += 1
            if on_each is not None:
                on_each(count)
            if rate:
                due_s = max(due_s + 1 / rate, time.monotonic() - 1)
                await asyncio.sleep(due_s - time.monotonic())
    return Replayed(count=count)


def _pages(store: Store, selection: EventSelection) -> AsyncIterator[list[KeptRow]]:
    return pages_for_replay(
        store,
        event_types=[key for key in selection.routing_keys if key != UNRECOGNIZED],
        unrecognized=UNRECOGNIZED in selection.routing_keys,
        since_us=selection.since_us,
        task_id=selection.task_id,
        event_id=selection.event_id,
    )


def _message(kept: DeadLetter | KeptRow) -> Message:
    return Message(
        body=kept.body,
        event_id=kept.event_id,
        routing_key=kept.routing_key,
        received_at_us=kept.received_at_us,
        trace=kept.trace if isinstance(kept, DeadLetter) else "",
        source=kept.source,
    )
