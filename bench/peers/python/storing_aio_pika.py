"""aio-pika by hand and asyncpg: decode, store in a transaction, acknowledge."""

import asyncio
import json

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from bench.peers.python.storing import AMQP_URL, PREFETCH, QUEUE, event_id_of, open_pool, store


async def main() -> None:
    """Consume until SIGTERM."""
    connection = await aio_pika.connect_robust(AMQP_URL)
    async with connection, await open_pool() as pool:

        async def handle(message: AbstractIncomingMessage) -> None:
            async with message.process(requeue=True):
                await store(pool, event_id_of(message.headers, message.body), message.body, json.loads(message.body))

        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(QUEUE)
        await queue.consume(handle)
        await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main())
