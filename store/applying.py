"""Bringing events into the store: each takes effect once, in any order, from any number of processes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Row,
    ScalarSelect,
    and_,
    bindparam,
    case,
    delete,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas import EVENT_TYPES, UNRECOGNIZED, Event, Unrecognized, decode
from store.connecting import Store
from store.errors import StoreError
from store.recording import Recording, fold, makes_recording, outranks
from store.sql import MAX_VALUES, chunks
from store.tables import events, recordings
from store.text import storable

RecordingKey: TypeAlias = tuple[int, str]


class KeptEvent(Struct, frozen=True, kw_only=True):
    """An event to keep: what `schemas.decode` made of `body`, and when it was accepted.

    `body` is the callback without Sign and ExpireTime; `received_at_us` is in microseconds since the Unix epoch.
    """

    event: Event
    event_id: str
    received_at_us: int
    body: bytes


async def apply_events(store: Store, kept: Sequence[KeptEvent]) -> None:
    """Keep events and bring their recordings up to date, in one transaction, durable on return.

    Idempotent; any order, any grouping and any number of processes at the same moment give the same recordings
    as `fold` does. An event that comes again stays as it was first accepted; one that was not recognized at first
    (its Timestamp lay too far ahead, or the code was older) becomes recognized when it comes again.

    Raises `StoreUnavailableError` and `SchemaMismatchError`; then nothing was applied, or all of it was: repeat.
    """
    by_id = _once_each(kept)
    if by_id:
        await store.write(lambda connection: _apply(store, connection, by_id))


async def _apply(store: Store, connection: AsyncConnection, by_id: Mapping[str, KeptEvent]) -> None:
    # Everybody takes recordings in the order of their keys, then events in the order of their ids, and reads the
    # events of a recording only with its lock: nobody waits in a circle, and nobody folds without what another
    # process has just applied.
    keys = sorted({_key(one.event) for one in by_id.values() if makes_recording(one.event)})
    await _lock_recordings(store, connection, keys)
    await _insert_events(store, connection, [by_id[event_id] for event_id in sorted(by_id)])
    if keys:
        winners = await _read_winners(connection, keys, by_id)
        await _update_recordings(connection, winners)
        await _delete_recordings(connection, [key for key in keys if key not in winners])


def _once_each(kept: Iterable[KeptEvent]) -> dict[str, KeptEvent]:
    best: dict[str, KeptEvent] = {}
    for one in kept:
        known = best.get(one.event_id)
        if known is None or _precedence(one) < _precedence(known):
            best[one.event_id] = one
    return best


def _precedence(one: KeptEvent) -> tuple[bool, int, bytes]:
    """Order two acceptances of one event as `_insert_events` does: recognized first, then the earlier."""
    return isinstance(one.event, Unrecognized), one.received_at_us, one.body


def _key(event: Event) -> RecordingKey:
    return event.sdk_app_id, "" if isinstance(event, Unrecognized) else event.task_id


async def _lock_recordings(store: Store, connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    if not keys:
        return
    absent = [
        {
            "sdk_app_id": sdk_app_id,
            "task_id": task_id,
            "status": "",
            "failed": False,
            "omitted_durations": [],
            "videos": [],
            "active_at_us": 0,
        }
        for sdk_app_id, task_id in keys
    ]
    await connection.execute(store.insert(recordings).on_conflict_do_nothing(), absent)
    for part in chunks(keys, MAX_VALUES):
        await connection.execute(
            select(recordings.c.sdk_app_id)
            .where(_is_one_of(part))
            .order_by(recordings.c.sdk_app_id, recordings.c.task_id)
            .with_for_update()
        )


async def _insert_events(store: Store, connection: AsyncConnection, kept: Sequence[KeptEvent]) -> None:
    insert = store.insert(events)
    new = insert.excluded
    is_known, was_known = new.routing_key != UNRECOGNIZED, events.c.routing_key != UNRECOGNIZED
    precedes = or_(
        and_(is_known, ~was_known),
        and_(
            is_known == was_known,
            new.sdk_app_id == events.c.sdk_app_id,
            new.task_id.is_not_distinct_from(events.c.task_id),
            tuple_(new.received_at_us, new.body) < tuple_(events.c.received_at_us, events.c.body),
        ),
    )
    upsert = insert.on_conflict_do_update(
        index_elements=[events.c.event_id],
        set_={column.name: new[column.name] for column in events.c if not column.primary_key},
        where=precedes,
    )
    await connection.execute(upsert, [_event_row(one) for one in kept])


def _event_row(one: KeptEvent) -> dict[str, Any]:
    event = one.event
    row = {
        "event_id": one.event_id,
        "sdk_app_id": event.sdk_app_id,
        "timestamp": event.timestamp,
        "outranks": outranks(event),
        "received_at_us": one.received_at_us,
        "body": one.body,
    }
    if isinstance(event, Unrecognized):
        event_type = None if event.event_type is None else storable(event.event_type)
        reason = storable(event.reason)
        return row | {"routing_key": UNRECOGNIZED, "event_type": event_type, "task_id": None, "reason": reason}
    event_type = type(event).__name__
    return row | {"routing_key": event_type, "event_type": event_type, "task_id": event.task_id or None, "reason": None}


async def _read_winners(
    connection: AsyncConnection, keys: Sequence[RecordingKey], by_id: Mapping[str, KeptEvent]
) -> dict[RecordingKey, list[KeptEvent]]:
    """Return the events that count, at most one per type and recording, however many there are."""
    winners: dict[RecordingKey, list[KeptEvent]] = {}
    for part in chunks(keys, MAX_VALUES):
        winner_ids = await connection.execute(
            select(*(_winner(event_type) for event_type in EVENT_TYPES)).where(_is_one_of(part))
        )
        ids = sorted(event_id for row in winner_ids for event_id in row if event_id is not None)
        for some in chunks(ids, MAX_VALUES):
            here = [event_id for event_id in some if event_id in by_id and makes_recording(by_id[event_id].event)]
            # What this group brought need not be read and decoded again.
            body = case((events.c.event_id.in_(here), null()), else_=events.c.body).label("body")
            rows = await connection.execute(
                select(events.c.event_id, events.c.received_at_us, body).where(events.c.event_id.in_(some))
            )
            for row in rows:
                winner = _winner_from(row, by_id)
                winners.setdefault(_key(winner.event), []).append(winner)
    return winners


def _winner(event_type: str) -> ScalarSelect[str]:
    """Select the winner's id by one look into `ix_events_winner`."""
    return (
        select(events.c.event_id)
        .where(
            events.c.sdk_app_id == recordings.c.sdk_app_id,
            events.c.task_id == recordings.c.task_id,
            events.c.routing_key == event_type,
        )
        .order_by(events.c.outranks.desc(), events.c.timestamp.desc(), events.c.event_id.desc())
        .limit(1)
        .correlate(recordings)
        .scalar_subquery()
    )


def _winner_from(row: Row[Any], by_id: Mapping[str, KeptEvent]) -> KeptEvent:
    if row.body is None:
        return msgspec.structs.replace(by_id[row.event_id], received_at_us=row.received_at_us)
    event = decode(row.body, received_at_us=row.received_at_us).event
    if not makes_recording(event):
        raise StoreError(
            f"event {row.event_id} was recognized by another version and is not by this one: run one version everywhere"
        )
    return KeptEvent(event=event, event_id=row.event_id, received_at_us=row.received_at_us, body=row.body)


async def _update_recordings(connection: AsyncConnection, winners: Mapping[RecordingKey, Sequence[KeptEvent]]) -> None:
    rows = [
        _recording_row(fold(those)) | {"active_at_us": max(one.received_at_us for one in those)}
        for those in winners.values()
    ]
    statement = update(recordings).where(
        recordings.c.sdk_app_id == bindparam("of_sdk_app_id"), recordings.c.task_id == bindparam("of_task_id")
    )
    if rows:
        await connection.execute(statement, rows)


async def _delete_recordings(connection: AsyncConnection, keys: Sequence[RecordingKey]) -> None:
    """Take back recordings that turned out to have no event: its id was already that of another recording's.

    Ids are digests of the content, so a sender cannot bring this about; somebody who writes into the queues can.
    """
    for part in chunks(keys, MAX_VALUES):
        await connection.execute(delete(recordings).where(_is_one_of(part)))


def _recording_row(recording: Recording) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(recording)
    error = row.pop("error")
    del row["events"]
    return row | {
        "of_sdk_app_id": row.pop("sdk_app_id"),
        "of_task_id": row.pop("task_id"),
        "failed": error is not None,
        "error_code": error and error["code"],
        "error_message": error and error["message"],
    }


def _is_one_of(keys: Sequence[RecordingKey]) -> ColumnElement[bool]:
    # SQLite finds no index for a list of pairs, so it gets one for the half that is nearly unique.
    return and_(
        recordings.c.task_id.in_(sorted({task_id for _, task_id in keys})),
        tuple_(recordings.c.sdk_app_id, recordings.c.task_id).in_(keys),
    )
