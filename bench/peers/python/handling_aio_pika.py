"""aio-pika by hand: decode, handle, acknowledge."""

import asyncio
import json

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from bench.contenders.progress import Progress
from bench.peers.python.handling import AMQP_URL, PREFETCH, QUEUE

progress = Progress()


async def handle(message: AbstractIncomingMessage) -> None:
    """Acknowledge once handled; an exception gives the message back."""
    async with message.process(requeue=True):
        json.loads(message.body)
        progress.handled()


async def main() -> None:
    """Consume until SIGTERM."""
    connection = await aio_pika.connect_robust(AMQP_URL)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(QUEUE)
        await queue.consume(handle)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main())
