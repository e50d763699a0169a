"""Both transports, behind one fixture."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from broker import ConsumerQueues, Transport
from broker.amqp.transport import AmqpTransport
from broker.embedded.transport import EmbeddedTransport
from tests.broker.consumers import CONSUMERS, LADDER
from tests.broker.contract import wait_ready

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
