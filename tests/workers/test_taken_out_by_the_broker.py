"""What a policy of RabbitMQ takes out of a consumer's queue is handled in the end, or is a dead letter."""

import asyncio

from msgspec import structs

from broker.amqp.transport import AmqpTransport
from schemas import OnlineRecordStarted
from store import list_dead_letters
from tests.broker.amqp_broker import foreign_channel, wait_ready
from tests.servers.rabbitmq import RabbitMQServer
from tests.workers.house import LADDER, House, eventually, started
from workers import Consumer, Context, Worker, consumer


def noting(handled: list[str]) -> Consumer:
    @consumer
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(f"{event.task_id} {ctx.source}".strip())

    return archive


def transport_to(url: str, consumer: Consumer) -> AmqpTransport:
    return AmqpTransport([url], consumers=[consumer.queues], retry_delays_s=LADDER)


async def test_an_event_that_expired_while_no_worker_ran_is_handled_once_one_runs(
    house: House, rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    handled: list[str] = []
    archive = noting(handled)
    async with transport_to(rabbitmq.url(amqp_vhost), archive) as transport:
        await wait_ready(transport)
        expiring = {"pattern": r"^tiw\.archive$", "apply-to": "queues", "definition": {"message-ttl": 500}}
        await asyncio.to_thread(rabbitmq.api, "PUT", f"policies/{amqp_vhost}/tidy", expiring)

        async def it_expired() -> bool:
            # The policy holds from some moment on, which the broker does not tell.
            await transport.publish(structs.replace(started("class"), source="reconcile"))
            await asyncio.sleep(0.6)
            (state,) = await transport.inspect(["archive"])
            return state.dead > 0

        await eventually(it_expired)
        async with Worker([archive], transport=transport, store=house.store, retry_delays_s=LADDER):
            await eventually(lambda: "class reconcile" in handled)
            await eventually(lambda: nothing_waits(transport))
    assert await list_dead_letters(house.store) == []


async def nothing_waits(transport: AmqpTransport) -> bool:
    (state,) = await transport.inspect(["archive"])
    return state.dead == 0 and state.ready == 0


async def test_an_event_that_the_broker_gives_up_is_a_dead_letter_that_says_so(
    house: House, rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    url = rabbitmq.url(amqp_vhost)
    archive = noting([])
    async with transport_to(url, archive) as transport:
        await wait_ready(transport)
        strict = {"pattern": r"^tiw\.archive$", "apply-to": "queues", "definition": {"delivery-limit": 1}}
        await asyncio.to_thread(rabbitmq.api, "PUT", f"operator-policies/{amqp_vhost}/strict", strict)
        await transport.send("archive", started("class"))

        async def it_is_given_up() -> bool:
            async with foreign_channel(url) as channel:
                await channel.basic_get("tiw.archive")
            (state,) = await transport.inspect(["archive"])
            return state.dead == 1

        await eventually(it_is_given_up)
        async with Worker([archive], transport=transport, store=house.store, retry_delays_s=LADDER):
            await eventually(lambda: has_dead_letter(house))
    (letter,) = await list_dead_letters(house.store)
    assert letter.reason == "the broker gave up: it came back unsettled too often"


async def has_dead_letter(house: House) -> bool:
    return len(await list_dead_letters(house.store)) == 1
