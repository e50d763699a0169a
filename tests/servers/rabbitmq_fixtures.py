"""Fixtures: a private RabbitMQ for the whole session, and a place of its own in it for each test."""

import asyncio
import os
from collections.abc import Iterator

import aiormq
import pytest

from broker import BUILT_IN_CONSUMERS, DEFAULT_RETRY_DELAYS_S
from broker.topology import topology
from tests.broker.consumers import CONSUMERS, LADDER
from tests.servers.rabbitmq import RabbitMQServer, find_scripts

#: Names a broker that runs already. No virtual host is made there: all that is ours in it is deleted before each test.
OTHER_BROKER = "TIW_TEST_AMQP_URL"


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """Start a RabbitMQ of our own."""
    scripts = find_scripts()
    if scripts is None:
        reason = "RabbitMQ is not installed: its tests were NOT run"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with RabbitMQServer(scripts) as server:
        yield server


@pytest.fixture
def amqp_vhost(rabbitmq: RabbitMQServer) -> Iterator[str]:
    """Make a fresh virtual host on `rabbitmq` and give its name."""
    vhost = rabbitmq.create_vhost()
    yield vhost
    rabbitmq.delete_vhost(vhost)


@pytest.fixture
def amqp_url(request: pytest.FixtureRequest) -> str:
    """Give the address of a broker with nothing of ours in it."""
    other = os.environ.get(OTHER_BROKER)
    if other:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_delete_topology(other))
        return other
    server: RabbitMQServer = request.getfixturevalue("rabbitmq")
    vhost: str = request.getfixturevalue("amqp_vhost")
    return server.url(vhost)


async def _delete_topology(url: str) -> None:
    everything = topology((*BUILT_IN_CONSUMERS, *CONSUMERS), retry_delays_s=(*LADDER, *DEFAULT_RETRY_DELAYS_S))
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        for queue in everything.queues:
            await channel.queue_delete(queue.name)
        for exchange in everything.exchanges:
            await channel.exchange_delete(exchange.name)
    finally:
        await connection.close()
