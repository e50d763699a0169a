"""Counting what lies in the queues, and reading whose it is."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import aiormq
from aiormq.abc import AbstractChannel

from broker import BUILT_IN_CONSUMERS
from broker.topology import ConsumerQueues, topology
from chaos.evidence.outcome import Waiting

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
