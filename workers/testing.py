"""Try a consumer on events without a broker."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

from schemas import Event, OnlineRecordFinished
from store import Store, Verdict
from workers.api import Consumer, Context, DeadLetter, Outcome
from workers.execution import EachAlone, StoreAway, judge
from workers.slots import Ending, Slots
from workers.verification import judge_verdict

_Group: TypeAlias = list[tuple[Event, Context]]


async def run_consumer(
    consumer: Consumer,
    event: Event,
    *,
    event_id: str = "0" * 32,
    attempt: int = 1,
    body: bytes = b"{}",
    received_at: datetime | None = None,
    store: Store | None = None,
    verified: bool = True,
) -> Outcome:
    """Run `consumer` once on `event`, exactly as the runner would, time-out included, and return the outcome.

    `assert await run_consumer(archive, OnlineRecordFinished(task_id="t", timestamp=1)) == Ack()`

    One with `batch` is called with a group of this event alone. To one with `verified` a Finished event comes as the
    vendor confirmed it; with `verified=False` the vendor contradicts it, and the outcome is the dead letter.
    """
    refusal = _refusal(consumer, event, verified=verified)
    if refusal is not None:
        return refusal
    context = _context(consumer, event_id=event_id, attempt=attempt, body=body, received_at=received_at, store=store)
    (outcome,) = await _attempt(consumer, [(event, context)])
    return outcome


async def run_batch(
    consumer: Consumer, events: Sequence[Event], *, store: Store | None = None, verified: bool = True
) -> list[Outcome]:
    """Run `consumer`, one with `batch`, on a group of `events` as the runner would, and return an outcome for each.

    `assert await run_batch(archive, [first, second]) == [Ack(), Ack()]`

    If it fails on the group, it is run again on each event alone. Their event_ids are 0, 1, 2 ... with 32 digits.
    `verified` is that of `run_consumer`, for all.
    """
    if consumer.batch is None or not 1 <= len(events) <= consumer.batch:
        raise ValueError(f"{consumer.name} takes {consumer.batch or 'no'} events in a group, not {len(events)}")
    contexts = [_context(consumer, event_id=f"{number:032}", store=store) for number in range(len(events))]
    refusals = [_refusal(consumer, event, verified=verified) for event in events]
    group = [
        (event, context) for event, context, refusal in zip(events, contexts, refusals, strict=True) if refusal is None
    ]
    outcomes = iter(await _attempt(consumer, group) if group else [])
    return [next(outcomes) if refusal is None else refusal for refusal in refusals]


def _refusal(consumer: Consumer, event: Event, *, verified: bool) -> Outcome | None:
    """Return the outcome of an event that its consumer never gets to see."""
    if not consumer.verified or not isinstance(event, OnlineRecordFinished):
        return None
    judged = judge_verdict(event, Verdict(verified=verified, answer=None))
    return judged if isinstance(judged, DeadLetter) else None


async def _attempt(consumer: Consumer, group: _Group) -> list[Outcome]:
    judged = judge(consumer, [context for _, context in group], await _call(consumer, group))
    if isinstance(judged, StoreAway):
        raise judged.error
    if isinstance(judged, EachAlone):
        return [outcome for one in group for outcome in await _attempt(consumer, [one])]
    return list(judged)


async def _call(consumer: Consumer, group: _Group) -> Ending:
    waiting = [group]
    ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def on_end(_: _Group, ending: Ending) -> None:
        if not ended.done():
            ended.set_result(ending)

    def arguments(group: _Group) -> tuple[Any, ...]:
        return group[0] if consumer.batch is None else (list(group),)

    slots = Slots[_Group](
        consumer,
        take=lambda: waiting.pop() if waiting else None,
        is_waiting=lambda: bool(waiting),
        arguments=arguments,
        ended=on_end,
    )
    slots.wake()
    try:
        return await ended
    finally:
        await slots.stop()


def _context(
    consumer: Consumer,
    *,
    event_id: str,
    attempt: int = 1,
    body: bytes = b"{}",
    received_at: datetime | None = None,
    store: Store | None = None,
) -> Context:
    received_at_s = time.time() if received_at is None else received_at.timestamp()
    return Context(
        consumer=consumer.name,
        event_id=event_id,
        attempt=attempt,
        received_at_us=round(received_at_s * 1_000_000),
        body=body,
        store=store,
    )
