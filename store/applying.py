"""Bringing events into the store: each takes effect once, in any order, from any number of processes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, select, true, update

from schemas import Event, Unrecognized, decode
from store.connection import AsyncConnection
from store.errors import StoreError
from store.kept import KeptEvent, event_row, recording_key, recording_row
from store.recording import makes_recording, merge_verified
from store.statements import Dialect, RecordingKey, delete_recordings, read_winners
from store.store import Store
from store.tables import events


async def apply_events(store: Store, kept: Sequence[KeptEvent]) -> None:
    """Keep events and bring their recordings up to date, durable on return.

    Idempotent; any order, any grouping and any number of processes at the same moment give the same recordings
    as `fold` does. `RecordingArchived` and what is unrecognized change none. An event that comes again stays as it was
    first accepted, but for `source` and `verified`, which say what all its acceptances say together; one that was not
    recognized at first (its Timestamp lay too far ahead, or the code was older) becomes recognized when it comes again.

    Raises `StoreUnavailableError` and `SchemaMismatchError`; then some recordings may have their events of these, whole
    and merged, and others not: repeat.
    """
    by_id = _once_each(kept)
    if by_id and not await store.apply_directly(by_id):
        await store.write(lambda connection: _apply(store.dialect, connection, by_id))


async def _apply(dialect: Dialect, connection: AsyncConnection, by_id: Mapping[str, KeptEvent]) -> None:
    # Everybody takes recordings in the order of their keys, new ones first, then events in the order of their ids,
    # and reads the events of a recording only with its lock: nobody waits in a circle, and nobody folds without what
    # another process has just applied.
    by_key: dict[RecordingKey, list[KeptEvent]] = {}
    for one in by_id.values():
        if makes_recording(one.event):
            by_key.setdefault(recording_key(one.event), []).append(one)
    keys = sorted(by_key)
    new: set[RecordingKey] = set()
    missing = keys
    while missing:
        new |= await dialect.insert_recordings(connection, [recording_row(by_key[key]) for key in missing])
        there = [key for key in missing if key not in new]
        locked = await dialect.lock_recordings(connection, there) if there else set()
        # Forgotten just now: made anew, or its event would be kept without it.
        missing = [key for key in there if key not in locked]
    applied = await dialect.upsert_events(connection, [event_row(by_id[event_id]) for event_id in sorted(by_id)])
    # A new recording has no events but those of this group: it is right already, if all of them are now its own.
    to_fold = [key for key in keys if key not in new or any(one.event_id not in applied for one in by_key[key])]
    if to_fold:
        await _fold_anew(dialect, connection, to_fold, by_id)


async def _fold_anew(
    dialect: Dialect, connection: AsyncConnection, keys: Sequence[RecordingKey], by_id: Mapping[str, KeptEvent]
) -> None:
    known_ids = {event_id for event_id, one in by_id.items() if makes_recording(one.event)}
    winners: dict[RecordingKey, list[KeptEvent]] = {}
    for row in await read_winners(dialect, connection, keys, known_ids=known_ids):
        winner = _winner_from(row, by_id)
        winners.setdefault(recording_key(winner.event), []).append(winner)
    if winners:
        await dialect.update_recordings(connection, [recording_row(winners[key]) for key in sorted(winners)])
    # Taken back are recordings that turned out to have no event: its id was already that of another recording's. Ids
    # are digests of the content, so a sender cannot bring this about; somebody who writes into the queues can.
    without = [key for key in keys if key not in winners]
    if without:
        await delete_recordings(dialect, connection, without)


async def mark_verified(store: Store, event_id: str, verified: bool) -> bool:
    """Keep whether the vendor confirms an event of a recording, and bring the recording up to date, in one transaction.

    Returns whether that was news: an event that it confirmed once stays confirmed, and one that is not kept, or belongs
    to no recording, is passed over. Raises `StoreUnavailableError` and `SchemaMismatchError`.
    """
    where_it_is = select(events.c.sdk_app_id, events.c.task_id).where(
        events.c.event_id == event_id, events.c.task_id.is_not(None)
    )
    is_news = events.c.verified.is_not(true()) if verified else events.c.verified.is_(None)
    marking = (
        update(events)
        .where(events.c.event_id == event_id, events.c.task_id.is_not(None), is_news)
        .values(verified=verified, contradicted=not verified)
    )

    async def operation(connection: AsyncConnection) -> bool:
        place = (await connection.execute(where_it_is)).one_or_none()
        if place is None:
            return False
        key = (place.sdk_app_id, place.task_id)
        await store.dialect.lock_recordings(connection, [key])
        if not (await connection.execute(marking)).rowcount:
            return False
        await _fold_anew(store.dialect, connection, [key], {})
        return True

    return await store.write(operation)


def _once_each(kept: Iterable[KeptEvent]) -> dict[str, KeptEvent]:
    once: dict[str, KeptEvent] = {}
    for one in kept:
        known = once.get(one.event_id)
        once[one.event_id] = one if known is None else _together(known, one)
    return once


def _together(one: KeptEvent, other: KeptEvent) -> KeptEvent:
    """Return what `upsert_events` makes of two acceptances of one event."""
    first, second = (other, one) if _precedence(other) < _precedence(one) else (one, other)
    if _identity(first.event) != _identity(second.event):
        return first
    verified = merge_verified(first.verified, second.verified)
    return msgspec.structs.replace(first, source=min(first.source, second.source), verified=verified)


def _identity(event: Event) -> tuple[bool, RecordingKey]:
    return type(event) is Unrecognized, recording_key(event)


def _precedence(one: KeptEvent) -> tuple[bool, int, bytes]:
    """Order two acceptances of one event as `upsert_events` does: recognized first, then the earlier."""
    return type(one.event) is Unrecognized, one.received_at_us, one.body


def _winner_from(row: Row[Any], by_id: Mapping[str, KeptEvent]) -> KeptEvent:
    kept = {"received_at_us": row.received_at_us, "source": row.source, "verified": row.verified}
    if row.body is None:
        return msgspec.structs.replace(by_id[row.event_id], **kept)
    event = decode(row.body, received_at_us=row.received_at_us).event
    if not makes_recording(event):
        raise StoreError(
            f"event {row.event_id} was recognized by another version and is not by this one: run one version everywhere"
        )
    return KeptEvent(event=event, event_id=row.event_id, body=row.body, **kept)
