"""A worker in a test: embedded transport, SQLite store, and short delays."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from broker import Message, QueueState, Transport
from broker.embedded.transport import EmbeddedTransport
from schemas import (
    RECORDING_ARCHIVED,
    UNRECOGNIZED,
    Manifest,
    ManifestFile,
    OnlineRecordStarted,
    RecordingArchived,
    RecordingEvent,
    decode,
    encode_archived,
)
from store import Store, list_dead_letters, list_events
from workers import Consumer, Context, Worker, consumer
from workers.verification import wall_clock_us

#: Every retry comes back at once, but with delays that can be told apart.
LADDER = (0.05, 0.1, 0.2)

DEADLINE_S = 20.0


class House(Struct, frozen=True, kw_only=True):
    """What a worker works with."""

    store: Store
    folder: Path

    def transport(self, consumers: Sequence[Consumer] = ()) -> Transport:
        """Return another transport over the same queues."""
        queues = [consumer.queues for consumer in consumers]
        return EmbeddedTransport(self.folder, consumers=queues, retry_delays_s=LADDER)

    async def queue(self, name: str) -> QueueState:
        """Return what waits in a consumer's queue."""
        async with self.transport() as transport:
            (state,) = await transport.inspect([name])
        return state

    @asynccontextmanager
    async def working(
        self,
        *consumers: Consumer,
        lease_s: float = 30.0,
        drain_grace_s: float = 5.0,
        now_us: Callable[[], int] = wall_clock_us,
        transport: Transport | None = None,
    ) -> AsyncIterator[Transport]:
        """Run `consumers` while the block runs, and give the transport to publish on."""
        async with self.transport(consumers) if transport is None else transport as opened:
            worker = Worker(
                consumers,
                transport=opened,
                store=self.store,
                retry_delays_s=LADDER,
                lease_s=lease_s,
                drain_grace_s=drain_grace_s,
                now_us=now_us,
            )
            async with worker:
                await eventually(lambda: worker.is_ready)
                yield opened


def started(task_id: str = "task", **members: Any) -> Message:
    """Return OnlineRecordStarted as ingest would publish it."""
    return published("OnlineRecordStarted", task_id, **members)


def finished(task_id: str = "task", **members: Any) -> Message:
    """Return OnlineRecordFinished as ingest would publish it."""
    return published("OnlineRecordFinished", task_id, **members)


def published(event_type: str, task_id: str, **members: Any) -> Message:
    """Return an event as ingest would publish it."""
    callback = {
        "EventType": event_type,
        "Timestamp": 1_575_545_412,
        "SdkAppId": 1_400_000_001,
        "EventData": {"TaskId": task_id, **members},
    }
    return as_message(json.dumps(callback).encode())


def archived_message(task_id: str = "task", *, timestamp: int = 1_575_545_412) -> Message:
    """Return RecordingArchived as the archive publishes it."""
    manifest = Manifest(
        sdk_app_id=1_400_000_001,
        task_id=task_id,
        folder=f"1400000001/{task_id}",
        location=f"/srv/classes/1400000001/{task_id}",
        archived_at="2026-01-01T00:00:00Z",
        files=(ManifestFile(file_key="k", name="1_camera.mp4", outcome="archived", size=5),),
    )
    event = RecordingArchived(timestamp=timestamp, sdk_app_id=1_400_000_001, task_id=task_id, manifest=manifest)
    body, event_id = encode_archived(event)
    return Message(
        body=body,
        event_id=event_id,
        routing_key=RECORDING_ARCHIVED,
        received_at_us=time.time_ns() // 1000,
        source="archive",
    )


def as_message(body: bytes) -> Message:
    """Return a body as ingest would publish it."""
    received_at_us = time.time_ns() // 1000
    decoded = decode(body, received_at_us=received_at_us)
    is_recognized = isinstance(decoded.event, RecordingEvent)
    return Message(
        body=body,
        event_id=decoded.event_id,
        routing_key=type(decoded.event).__name__ if is_recognized else UNRECOGNIZED,
        received_at_us=received_at_us,
    )


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, deadline_s: float = DEADLINE_S) -> None:
    """Return once `condition` holds; raise TimeoutError if it never does."""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


async def is_settled(house: House, name: str) -> bool:
    state = await house.queue(name)
    return state.ready == 0 and state.unacked == 0 and state.dead == 0


def recording(attempts: list[int], *, fail: int = 0) -> Consumer:
    """Return a consumer that notes its attempts and fails the first `fail` of them."""

    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) <= fail:
            raise ValueError("not yet")

    return archive


async def has_letters(house: House, count: int) -> bool:
    return len(await list_dead_letters(house.store)) == count


async def has_events(house: House, count: int) -> bool:
    return len(await list_events(house.store)) == count


Batch = list[tuple[OnlineRecordStarted, Context]]


class Calls:
    """What a batch consumer was called with. The first call waits until `release`, so that a group can form."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.attempts: Counter[tuple[str, int]] = Counter()
        self._may_go_on = asyncio.Event()

    async def note(self, batch: Batch) -> list[str]:
        task_ids = [event.task_id for event, _ in batch]
        self.groups.append(task_ids)
        self.attempts.update((event.task_id, ctx.attempt) for event, ctx in batch)
        if task_ids == ["first"]:
            await self._may_go_on.wait()
        return task_ids

    @property
    def handled(self) -> list[str]:
        return [task_id for group in self.groups for task_id in group]

    async def form_group(self, house: House, transport: Transport, consumer: Consumer, task_ids: Sequence[str]) -> None:
        """Let `task_ids` wait behind the first call, then let it end."""
        await transport.publish(started("first"))
        await eventually(lambda: self.groups == [["first"]])
        await asyncio.gather(*(transport.publish(started(task_id)) for task_id in task_ids))

        async def all_wait() -> bool:
            return (await house.queue(consumer.name)).unacked == len(task_ids) + 1

        await eventually(all_wait)
        self._may_go_on.set()


TEN = [f"task-{number}" for number in range(10)]
