"""FastAPI and aio-pika: one robust connection and one confirming channel for the life of the application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import uvicorn
from fastapi import FastAPI, Request, Response

from bench.peers.python.accepting import AMQP_URL, ANSWER, EXCHANGE, PATH, PORT, QUEUE, REFUSAL, authentic


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep the connection open while the application runs."""
    connection = await aio_pika.connect_robust(AMQP_URL)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, routing_key="#")
        app.state.exchange = exchange
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.post(PATH)
async def callback(request: Request) -> Response:
    """Answer 200 once the broker has confirmed."""
    body = await request.body()
    content = authentic(body)
    if content is None:
        return Response(REFUSAL, 401, media_type="application/json")
    message = aio_pika.Message(body, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await app.state.exchange.publish(message, routing_key=content["EventType"], mandatory=True)
    return Response(ANSWER, media_type="application/json")


def main() -> None:
    """Serve until SIGTERM."""
    uvicorn.run(
        app, host="127.0.0.1", port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
