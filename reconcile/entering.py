"""Entering what the vendor answered: as an ordinary event, into the store and through the transport.

So every consumer sees it as if its callback had come, and it is merged as any other. Its bytes are the same however
often it is entered, and so is its event_id: a crash in between repeats it at worst.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from broker import Message
from schemas import OnlineRecordFinished, RecognizedEvent, RecordingEvent, Unrecognized, decode
from store import KeptEvent, Store, apply_events, find_events
from telemetry import metrics

#: The `source` of events that were made of what the vendor answered.
SOURCE: Final = "reconcile"

_log = structlog.get_logger()


class Publisher(Protocol):
    """As much of a transport as is needed here."""

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key. Raises `NotPublishedError`."""


class _Entered(KeptEvent, frozen=True, kw_only=True):
    event: RecognizedEvent


class Entrance:
    """Enters events into one store and one transport. `now_s` is the time in Unix seconds."""

    def __init__(self, store: Store, transport: Publisher, *, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._transport = transport
        self._now_s = now_s

    async def enter(self, body: bytes, *, by: str) -> bool:
        """Enter an event that no callback has told of; `by` names the call that did. Say whether it was new.

        A Finished one is confirmed by the vendor, and stored first: who waits for that confirmation looks it up as soon
        as the event comes. Any other is published first: once stored, nothing would ask for it again.

        Raises `StoreError` and `NotPublishedError`; then it is entered in part at most: repeat. Raises `ValueError` for
        what is no event.
        """
        kept = self._kept(body)
        event = kept.event
        event_type = type(event).__name__
        before = await find_events(self._store, event.sdk_app_id, event.task_id, event_type=event_type)
        if kept.verified:
            await apply_events(self._store, [kept])
            await self._publish(kept)
        else:
            await self._publish(kept)
            await apply_events(self._store, [kept])
        is_new = kept.event_id not in {one.event_id for one in before}
        if is_new:
            self._tell(event, by)
        return is_new

    def _kept(self, body: bytes) -> _Entered:
        received_at_us = int(self._now_s() * 1_000_000)
        decoded = decode(body, received_at_us=received_at_us)
        if isinstance(decoded.event, Unrecognized):
            raise ValueError(  # noqa: TRY004 - it is about a value
                f"no event can be made of the vendor's answer: {decoded.event.reason}"
            )
        return _Entered(
            event=decoded.event,
            event_id=decoded.event_id,
            received_at_us=received_at_us,
            body=body,
            source=SOURCE,
            verified=True if isinstance(decoded.event, OnlineRecordFinished) else None,
        )

    async def _publish(self, kept: KeptEvent) -> None:
        message = Message(
            body=kept.body,
            event_id=kept.event_id,
            routing_key=type(kept.event).__name__,
            received_at_us=kept.received_at_us,
            source=SOURCE,
        )
        await self._transport.publish(message)

    def _tell(self, event: RecordingEvent, by: str) -> None:
        metrics.RECORDINGS_FOUND.labels(by).inc()
        _log.warning(
            "recording_found",
            sdk_app_id=event.sdk_app_id,
            task_id=event.task_id,
            event_type=type(event).__name__,
            by=by,
            late_s=round(max(0.0, self._now_s() - event.timestamp)),
            consequence="no callback had told of it",
        )
