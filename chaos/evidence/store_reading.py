"""Reading the store, past everything that reads it otherwise: table by table."""

import hashlib
from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import func, select

from chaos.evidence.digests import content_digest
from chaos.evidence.outcome import Completion, StoredDeadLetter, StoredEvent
from chaos.evidence.secret_search import secrets_in
from schemas import decode
from store import Store, fold
from store.recording import RecordingContent
from store.store import members
from store.tables import completions, dead_letters, events, recordings

_PAGE = 5_000


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds, as evidence."""

    events: tuple[StoredEvent, ...]
    dead_letters: tuple[StoredDeadLetter, ...]
    completions: tuple[Completion, ...]
    recordings: int
    differing: tuple[str, ...]
    secrets: list[str]


class _Accepted(msgspec.Struct, frozen=True, kw_only=True):
    event: Any
    event_id: str
    received_at_us: int


async def count_events(url: str) -> int:
    """Return how many events the store holds."""
    async with Store(url) as store, store.reading() as connection:
        return int((await connection.execute(select(func.count()).select_from(events))).scalar_one())


async def read_store(url: str, *, key: str) -> Stored:
    """Read everything, hold each recording against the fold of its events, and look for a Sign and `key` in bodies."""
    found: list[StoredEvent] = []
    by_recording: dict[tuple[int, str], list[_Accepted]] = defaultdict(list)
    secrets: set[str] = set()
    last = ""
    async with Store(url) as store, store.reading() as connection:
        while True:
            query = select(events).where(events.c.event_id > last).order_by(events.c.event_id).limit(_PAGE)
            page = (await connection.execute(query)).all()
            if not page:
                break
            last = page[-1].event_id
            for row in page:
                secrets.update(secrets_in(row.body, key))
                found.append(
                    StoredEvent(
                        event_id=row.event_id,
                        digest=_digest_or_none(row.body),
                        sha256=hashlib.sha256(row.body).hexdigest(),
                    )
                )
                if row.task_id is not None:
                    event = decode(row.body, received_at_us=row.received_at_us).event
                    accepted = _Accepted(event=event, event_id=row.event_id, received_at_us=row.received_at_us)
                    by_recording[row.sdk_app_id, row.task_id].append(accepted)
        letters = (await connection.execute(select(dead_letters))).all()
        completed = (
            await connection.execute(select(completions).where(~completions.c.completed_at_us.is_(None)))
        ).all()
        rows = (await connection.execute(select(recordings))).all()
    return Stored(
        events=tuple(found),
        dead_letters=tuple(
            StoredDeadLetter(
                consumer=row.consumer,
                event_id=row.event_id,
                attempts=row.attempts,
                reason=row.reason,
                first_failed_at_us=row.first_failed_at_us,
                last_failed_at_us=row.last_failed_at_us,
            )
            for row in letters
        ),
        completions=tuple(
            Completion(consumer=row.consumer, event_id=row.event_id, completed_at_wall_us=row.completed_at_us)
            for row in completed
        ),
        recordings=len(rows),
        secrets=sorted(secrets.union(*(secrets_in(row.body, key) for row in letters))),
        differing=_differing({(row.sdk_app_id, row.task_id): members(row) for row in rows}, by_recording),
    )


def _differing(
    rows: dict[tuple[int, str], dict[str, Any]], by_recording: dict[tuple[int, str], list[_Accepted]]
) -> tuple[str, ...]:
    differing = []
    for key in sorted(rows.keys() | by_recording.keys()):
        name = f"{key[0]}/{key[1]}"
        if key not in rows:
            differing.append(f"{name}: there are events, but no recording")
        elif key not in by_recording:
            differing.append(f"{name}: there is a recording, but no event")
        else:
            stored = _content(rows[key])
            expected = msgspec.convert(msgspec.structs.asdict(fold(by_recording[key])) | {"events": None}, _Folded)
            fields = [
                field for field in _Folded.__struct_fields__ if getattr(stored, field) != getattr(expected, field)
            ]
            if fields:
                differing.append(f"{name}: {', '.join(fields)}")
    return tuple(differing)


class _Folded(RecordingContent, frozen=True, kw_only=True):
    """A recording without its events."""


def _content(row: dict[str, Any]) -> _Folded:
    error = {"code": row["error_code"], "message": row["error_message"]} if row["failed"] else None
    return msgspec.convert(row | {"error": error}, _Folded)


def _digest_or_none(body: bytes) -> str:
    try:
        return content_digest(body)
    except ValueError:
        return ""
