"""Both transports, behind one fixture, and the one over RabbitMQ for what only it goes through."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from broker import ConsumerQueues, Transport
from broker.amqp.transport import AmqpTransport
from broker.embedded.transport import EmbeddedTransport
from tests.broker.amqp_broker import open_amqp
from tests.broker.consumers import CONSUMERS, LADDER
from tests.broker.contract import wait_ready
from tests.servers.rabbitmq import RabbitMQServer

MakeTransport: TypeAlias = Callable[..., Transport]


@pytest.fixture(params=["embedded", "amqp"])
def make_transport(request: pytest.FixtureRequest, tmp_path: Path) -> MakeTransport:
    """Make a transport over the same queues every time it is called in one test."""
    if request.param == "amqp":
        url: str = request.getfixturevalue("amqp_url")

        def make_amqp(*, consumers: Sequence[ConsumerQueues] = CONSUMERS, **options: Any) -> Transport:
            return AmqpTransport([url], consumers=consumers, **({"retry_delays_s": LADDER} | options))

        return make_amqp

    def make_embedded(*, consumers: Sequence[ConsumerQueues] = CONSUMERS, **options: Any) -> Transport:
        return EmbeddedTransport(tmp_path / "transport", consumers=consumers, **({"retry_delays_s": LADDER} | options))

    return make_embedded


@pytest.fixture
async def transport(make_transport: MakeTransport) -> AsyncIterator[Transport]:
    async with make_transport() as opened:
        await wait_ready(opened)
        yield opened


@pytest.fixture
def url(rabbitmq: RabbitMQServer, amqp_vhost: str) -> str:
    """Give an address at our own RabbitMQ, which a test may pause, kill and ask about; `amqp_url` may be another."""
    return rabbitmq.url(amqp_vhost)


@pytest.fixture
async def amqp_transport(url: str) -> AsyncIterator[AmqpTransport]:
    async with open_amqp(url) as opened:
        await wait_ready(opened)
        yield opened
