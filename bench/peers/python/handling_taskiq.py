"""taskiq with its broker on aio-pika: a task that does nothing. `fill` sends the tasks."""

import asyncio
import itertools
import sys
from typing import Any

import uvloop
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_aio_pika import AioPikaBroker, Queue

from bench.contenders.progress import Progress
from bench.peers.python.handling import AMQP_URL, PREFETCH, QUEUE, events

broker = AioPikaBroker(AMQP_URL, qos=PREFETCH).with_queue(Queue(name=QUEUE))


@broker.task
async def handle(event: dict[str, Any]) -> None:
    """Count it."""
    del event
    broker.state.progress.handled()


async def fill() -> None:
    """Send the tasks, some at once."""
    await broker.startup()
    waiting = events()
    while window := [dict(event) for event in itertools.islice(waiting, 500)]:
        await asyncio.gather(*(handle.kiq(event) for event in window))
    await broker.shutdown()


async def work() -> None:
    """Handle tasks until SIGTERM; each is acknowledged once it has run."""
    broker.state.progress = Progress()
    await run_receiver_task(broker, run_startup=True, max_async_tasks=PREFETCH, ack_time=AcknowledgeType.WHEN_EXECUTED)


if __name__ == "__main__":
    uvloop.run(fill() if "fill" in sys.argv else work())
