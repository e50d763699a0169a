"""Reading what there is at the end: in the store, in queues, in spools, past everything that reads it otherwise."""

import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import aiormq
import msgspec
from aiormq.abc import AbstractChannel
from sqlalchemy import func, select

from broker import BUILT_IN_CONSUMERS
from broker.topology import ConsumerQueues, topology
from chaos.errors import ChaosError
from chaos.evidence import Completion, StoredDeadLetter, StoredEvent, Waiting, content_digest, secrets_in
from chaos.machine.deployment import OTHER_APP, Deployment
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
    source: str
    verified: bool | None


async def count_events(url: str) -> int:
    """Return how many events the store holds."""
    async with Store(url) as store, store.reading() as connection:
        return int((await connection.execute(select(func.count()).select_from(events))).scalar_one())


async def read_store(store: Store, *, key: str) -> Stored:
    """Read everything, hold each recording against the fold of its events, and look for a Sign and `key` in bodies."""
    found: list[StoredEvent] = []
    by_recording: dict[tuple[int, str], list[_Accepted]] = defaultdict(list)
    secrets: set[str] = set()
    last = ""
    async with store.reading() as connection:
        while True:
            query = select(events).where(events.c.event_id > last).order_by(events.c.event_id).limit(_PAGE)
            page = (await connection.execute(query)).all()
            if not page:
                break
            last = page[-1].event_id
            for row in page:
                secrets.update(secrets_in(row.body, key))
                if row.sdk_app_id != OTHER_APP:
                    found.append(
                        StoredEvent(
                            event_id=row.event_id,
                            digest=_digest_or_none(row.body),
                            sha256=hashlib.sha256(row.body).hexdigest(),
                        )
                    )
                # What we tell of our own archive makes no recording, and changes none.
                if row.task_id is not None and row.source != "archive":
                    event = decode(row.body, received_at_us=row.received_at_us).event
                    accepted = _Accepted(
                        event=event,
                        event_id=row.event_id,
                        received_at_us=row.received_at_us,
                        source=row.source,
                        verified=row.verified,
                    )
                    by_recording[row.sdk_app_id, row.task_id].append(accepted)
        letters = (await connection.execute(select(dead_letters))).all()
        completed = (
            await connection.execute(select(completions).where(~completions.c.completed_at_us.is_(None)))
        ).all()
        rows = (await connection.execute(select(recordings))).all()
        of_others = select(events.c.event_id).where(events.c.sdk_app_id == OTHER_APP)
        others = set((await connection.execute(of_others)).scalars())
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
                is_resolved=row.resolved_at_us is not None,
            )
            for row in letters
        ),
        completions=tuple(
            Completion(consumer=row.consumer, event_id=row.event_id, completed_at_wall_us=row.completed_at_us)
            for row in completed
            if row.event_id not in others
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
            expected = msgspec.convert(
                msgspec.structs.asdict(fold(by_recording[key])) | {"events": None}, _Folded, from_attributes=True
            )
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


_TIMEOUT_S = 10.0

#: The header of a message's event_id.
_EVENT_ID = "tiw-event-id"

#: As many are read of a queue that is not empty.
_READ = 300


async def read_queues(
    url: str, consumers: Sequence[str], *, ladder_s: Sequence[float]
) -> tuple[tuple[Waiting, ...], tuple[str, ...]]:
    """Return what waits, and the names of all queues there are. Raises what aiormq raises.

    What is read goes back: call it when nobody consumes.
    """
    waiting: list[Waiting] = []
    present: list[str] = []
    async with aclosing(_counted(url, consumers, ladder_s)) as queues:
        async for channel, name, count in queues:
            present.append(name)
            if count:
                ids = [await _read_one(channel, name) for _ in range(min(count, _READ))]
                waiting.append(
                    Waiting(place=name, count=count, event_ids=tuple(event_id for event_id in ids if event_id))
                )
    return tuple(waiting), tuple(present)


async def count_waiting(url: str, consumers: Sequence[str], *, ladder_s: Sequence[float]) -> int:
    """Return how many messages are ready in all queues together. Raises what aiormq raises."""
    async with aclosing(_counted(url, consumers, ladder_s)) as queues:
        return sum([count async for _, _, count in queues])


async def _counted(
    url: str, consumers: Sequence[str], ladder_s: Sequence[float]
) -> AsyncGenerator[tuple[AbstractChannel, str, int]]:
    custom = [ConsumerQueues(consumer=name, routing_keys=()) for name in consumers]
    connection = await aiormq.connect(url)
    try:
        for queue in topology((*BUILT_IN_CONSUMERS, *custom), retry_delays_s=ladder_s).queues:
            channel = await connection.channel(publisher_confirms=False)
            try:
                # Counts now, where the management API counts every few seconds.
                declared = await channel.queue_declare(queue.name, passive=True, timeout=_TIMEOUT_S)
            except aiormq.ChannelNotFoundEntity:
                continue
            yield channel, queue.name, declared.message_count or 0
            await channel.close()
    finally:
        await connection.close()


async def _read_one(channel: AbstractChannel, queue: str) -> str:
    got = await channel.basic_get(queue, no_ack=False, timeout=_TIMEOUT_S)
    headers = got.header.properties.headers or {}
    value = headers.get(_EVENT_ID, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def read_spools(deployment: Deployment) -> tuple[tuple[Waiting, ...], tuple[str, ...], tuple[str, ...]]:
    """Return what waits, the names of the spools that were read, and why others were not."""
    waiting: list[Waiting] = []
    read: list[str] = []
    not_read: list[str] = []
    by_folder = {node.environ["TIW_DATA_DIR"]: node for node in deployment.ingest}
    for node in by_folder.values():
        place = f"spool of {node.name}"
        try:
            listed = json.loads(
                deployment.run("spool", "list", "--json", "--limit", "0", environ=deployment.environ_of(node))
            )
        except ChaosError as error:
            not_read.append(f"{place}: {error}")
            continue
        read.append(place)
        ids = tuple(_event_id(one) for one in listed)
        if ids:
            waiting.append(Waiting(place=place, count=len(ids), event_ids=ids))
    return tuple(waiting), tuple(read), tuple(not_read)


def _event_id(listed: Any) -> str:
    return str(listed.get("event_id", ""))
