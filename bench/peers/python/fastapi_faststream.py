"""FastAPI and FastStream: the broker's router gives the application its publisher, as FastStream documents it."""

import uvicorn
from fastapi import FastAPI, Request, Response
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitExchange, RabbitQueue
from faststream.rabbit.fastapi import RabbitRouter

from bench.peers.python.accepting import AMQP_URL, ANSWER, EXCHANGE, PATH, PORT, QUEUE, REFUSAL, authentic

router = RabbitRouter(
    AMQP_URL, default_channel=Channel(publisher_confirms=True, on_return_raises=True), include_in_schema=False
)
exchange = RabbitExchange(EXCHANGE, type=ExchangeType.TOPIC, durable=True)
queue = RabbitQueue(QUEUE, queue_type=QueueType.QUORUM, durable=True, routing_key="#")


@router.after_startup
async def declare(_app: FastAPI) -> None:
    """Make the exchange and the queue."""
    declared = await router.broker.declare_exchange(exchange)
    await (await router.broker.declare_queue(queue)).bind(declared, routing_key="#")


@router.post(PATH)
async def callback(request: Request) -> Response:
    """Answer 200 once the broker has confirmed."""
    body = await request.body()
    content = authentic(body)
    if content is None:
        return Response(REFUSAL, 401, media_type="application/json")
    await router.broker.publish(
        body,
        exchange=exchange,
        routing_key=content["EventType"],
        content_type="application/json",
        persist=True,
        mandatory=True,
    )
    return Response(ANSWER, media_type="application/json")


app = FastAPI(openapi_url=None)
app.include_router(router)


def main() -> None:
    """Serve until SIGTERM."""
    uvicorn.run(
        app, host="127.0.0.1", port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
