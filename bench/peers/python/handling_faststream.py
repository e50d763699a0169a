"""A FastStream subscriber."""

from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from bench.contenders.progress import Progress
from bench.peers.python.handling import AMQP_URL, PREFETCH, QUEUE

broker = RabbitBroker(AMQP_URL, default_channel=Channel(prefetch_count=PREFETCH), logger=None)
progress = Progress()


@broker.subscriber(RabbitQueue(QUEUE, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR)
async def handle(event: dict[str, Any]) -> None:
    """Count it; what returns is acknowledged."""
    del event
    progress.handled()


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())
