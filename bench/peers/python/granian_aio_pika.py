"""Granian, an HTTP server in Rust, with its own interface (RSGI) and aio-pika: one confirming channel for its life."""

import asyncio
from typing import Any

import aio_pika
from granian import Granian
from granian.constants import Interfaces, Loops

from bench.peers.python.accepting import AMQP_URL, ANSWER, EXCHANGE, PATH, PORT, QUEUE, REFUSAL, authentic

_JSON = [("content-type", "application/json")]


class Application:
    """What Granian calls: once when it begins, then for every request."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect before the first request."""
        loop.run_until_complete(self._connect())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer 200 once the broker has confirmed."""
        if scope.method != "POST" or scope.path != PATH:
            protocol.response_empty(404, [])
            return
        body = await protocol()
        content = authentic(body)
        if content is None:
            protocol.response_bytes(401, _JSON, REFUSAL)
            return
        message = aio_pika.Message(
            body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await self._exchange.publish(message, routing_key=content["EventType"], mandatory=True)
        protocol.response_bytes(200, _JSON, ANSWER)

    async def _connect(self) -> None:
        connection = await aio_pika.connect_robust(AMQP_URL)
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        self._exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(self._exchange, routing_key="#")


app = Application()


def main() -> None:
    """Serve until SIGTERM, with one worker."""
    Granian(
        "bench.peers.python.granian_aio_pika:app",
        address="127.0.0.1",
        port=PORT,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        workers=1,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
