"""A worker in a test: embedded transport, SQLite store, and short delays."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from broker import Message, QueueState, Transport
from broker.embedded.transport import EmbeddedTransport
from schemas import UNRECOGNIZED, RecordingEvent, decode
from store import Store
from workers import Consumer, Worker

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
        self, *consumers: Consumer, lease_s: float = 30.0, drain_grace_s: float = 5.0
    ) -> AsyncIterator[Transport]:
        """Run `consumers` while the block runs, and give the transport to publish on."""
        async with self.transport(consumers) as transport:
            worker = Worker(
                consumers,
                transport=transport,
                store=self.store,
                retry_delays_s=LADDER,
                lease_s=lease_s,
                drain_grace_s=drain_grace_s,
            )
            async with worker:
                await eventually(lambda: worker.is_ready)
                yield transport


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
