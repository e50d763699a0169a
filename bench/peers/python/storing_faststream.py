"""A FastStream subscriber and asyncpg: store in a transaction, acknowledged by returning."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
import uvloop
from faststream import AckPolicy, Context, ContextRepo, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from bench.peers.python.storing import AMQP_URL, PREFETCH, QUEUE, event_id_of, open_pool, store

broker = RabbitBroker(AMQP_URL, default_channel=Channel(prefetch_count=PREFETCH), logger=None)


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    """Keep the pool open while the application runs."""
    async with await open_pool() as pool:
        context.set_global("pool", pool)
        yield


@broker.subscriber(RabbitQueue(QUEUE, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR)
async def handle(event: dict[str, Any], message: RabbitMessage, pool: Annotated[asyncpg.Pool, Context()]) -> None:
    """Store it; what returns is acknowledged."""
    await store(pool, event_id_of(message.headers, message.body), message.body, event)


if __name__ == "__main__":
    uvloop.run(FastStream(broker, lifespan=lifespan, logger=None).run())
