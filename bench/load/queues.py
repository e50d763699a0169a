"""Fill queues, and count what is in them."""

import asyncio
import itertools
from collections.abc import Iterable

import aiormq

from bench.load.payloads import messages
from broker import ConsumerQueues, Message
from broker.amqp.transport import AmqpTransport

#: Publishes that wait for their confirms at once.
_WINDOW = 1000


def fill(url: str, consumer: ConsumerQueues, count: int, *, sample: str = "started") -> tuple[str, str]:
    """Put `count` messages into a consumer's queue alone, which is declared, and return the first and last event_id."""
    return asyncio.run(_fill(url, consumer, messages(count, sample=sample)))


def count_ready(url: str, *queues: str) -> int:
    """Return how many messages are ready in these queues together; the broker answers what is true now."""
    return asyncio.run(_count_ready(url, queues))


async def _fill(url: str, consumer: ConsumerQueues, filling: Iterable[Message]) -> tuple[str, str]:
    first = last = ""
    async with AmqpTransport([url], consumers=[consumer], confirm_timeout_s=60) as transport:
        await transport.wait_ready()
        waiting = iter(filling)
        while window := list(itertools.islice(waiting, _WINDOW)):
            await asyncio.gather(*(transport.send(consumer.consumer, message) for message in window))
            first, last = first or window[0].event_id, window[-1].event_id
    return first, last


async def _count_ready(url: str, queues: Iterable[str]) -> int:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        declared = [await channel.queue_declare(queue, passive=True) for queue in queues]
        return sum(one.message_count or 0 for one in declared)
    finally:
        await connection.close()
