"""A transport over RabbitMQ, and what a test does to the broker behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import aiormq

from broker import Message, NotPublishedError
from broker.amqp.transport import AmqpTransport
from tests.broker.consumers import CONSUMERS, FINISHED, LADDER
from tests.broker.inbox import eventually
from tests.servers.rabbitmq import RabbitMQServer


def open_amqp(*urls: str, confirm_timeout_s: float = 2.5, management_url: str | None = None) -> AmqpTransport:
    return AmqpTransport(
        urls,
        consumers=CONSUMERS,
        retry_delays_s=LADDER,
        confirm_timeout_s=confirm_timeout_s,
        management_url=management_url,
    )


def message(event_id: str = "e" * 32) -> Message:
    return Message(body=b"{}", event_id=event_id, routing_key=FINISHED, received_at_us=1)


async def wait_ready(transport: AmqpTransport) -> None:
    async with asyncio.timeout(30):
        await transport.wait_ready()


async def holds(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def publish_in_the_end(transport: AmqpTransport, message: Message) -> None:
    async def published() -> bool:
        try:
            await transport.publish(message)
        except NotPublishedError:
            return False
        return True

    await eventually(published, timeout_s=30)


@contextlib.contextmanager
def paused(server: RabbitMQServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextlib.asynccontextmanager
async def foreign_channel(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


def delete_queue(server: RabbitMQServer, vhost: str, queue: str) -> None:
    server.api("DELETE", f"queues/{vhost}/{queue}")
