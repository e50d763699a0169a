"""What operators and other clients do to a transport: delete, close, declare otherwise, send what we never would."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiormq
import pytest
import structlog

import schemas
from broker import BrokerError, Message, NotPublishedError
from broker.amqp.publishing import Route
from broker.amqp.transport import AmqpTransport
from broker.topology import Topology, topology
from tests.broker.amqp_broker import delete_queue, foreign_channel, holds, message, open_amqp, wait_ready
from tests.broker.consumers import ARCHIVE, SHORT_S
from tests.broker.inbox import Inbox, eventually
from tests.servers.rabbitmq import RabbitMQServer


async def test_a_consumer_is_back_when_its_queue_was_deleted(
    rabbitmq: RabbitMQServer, amqp_vhost: str, amqp_transport: AmqpTransport
) -> None:
    inbox = Inbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=5) as subscription:
        await amqp_transport.publish(message("before"))
        (before,) = await inbox.wait(1)
        await holds(lambda: subscription.is_consuming)
        with structlog.testing.capture_logs() as logs:
            await asyncio.to_thread(delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            await holds(lambda: {entry["event"] for entry in logs} >= {"consumer_lost", "consumer_started"})
        assert subscription.is_consuming
        await amqp_transport.publish(message("after"))
        _, after = await inbox.wait(2)
        assert after.message.event_id == "after"
        await before.ack()
        assert await after.ack()
        assert subscription.is_consuming


async def test_a_consumer_is_back_when_its_channel_was_closed(amqp_transport: AmqpTransport) -> None:
    inbox = Inbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        await amqp_transport.publish(message())
        (delivery,) = await inbox.wait(1)
        deliveries = subscription._deliveries
        assert deliveries is not None
        # An unknown delivery tag: the broker closes the channel.
        await deliveries._channel.basic_ack(4711)
        _, again = await inbox.wait(2)
        assert not await delivery.ack()
        assert again.crashes == 1
        assert await again.ack()


async def test_an_operator_may_close_the_connections(
    rabbitmq: RabbitMQServer, amqp_vhost: str, amqp_transport: AmqpTransport
) -> None:
    inbox = Inbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        await amqp_transport.publish(message("before"))
        (before,) = await inbox.wait(1)

        async def both_are_listed() -> bool:
            return len(await asyncio.to_thread(rabbitmq.connections, amqp_vhost)) == 2

        await eventually(both_are_listed)
        assert await asyncio.to_thread(rabbitmq.close_connections, amqp_vhost) == 2
        await amqp_transport.publish(message("after"))
        await inbox.wait(2)
        assert not await before.ack()
        assert await inbox.deliveries[1].ack()
        await inbox.wait(3)
        assert set(inbox.event_ids) == {"before", "after"}
        # The broker counts a return. But this process lives.
        assert {delivery.crashes for delivery in inbox.deliveries} == {0}
        await holds(lambda: subscription.is_consuming)


async def test_what_leads_to_no_queue_is_an_error(amqp_transport: AmqpTransport) -> None:
    nothing = Topology(exchanges=(), queues=())
    for exchange in ("", "tiw.nowhere"):
        with pytest.raises(NotPublishedError, match="leads to no queue"):
            await amqp_transport._publisher.publish(message(), Route(exchange, "nobody", nothing))
    await amqp_transport.publish(message())


@pytest.mark.parametrize("deleted", ["tiw.archive.dead", "tiw.retry.200ms", "tiw.orphaned", "tiw.unrecognized"])
async def test_a_queue_that_an_operator_deleted_is_made_anew(
    rabbitmq: RabbitMQServer, amqp_vhost: str, amqp_transport: AmqpTransport, deleted: str
) -> None:
    await asyncio.to_thread(delete_queue, rabbitmq, amqp_vhost, deleted)
    inbox = Inbox()
    await amqp_transport.dead_letter("archive", message())
    await amqp_transport.send("nobody", message())
    await amqp_transport.publish(Message(body=b"", event_id="u", routing_key="unrecognized", received_at_us=1))
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await amqp_transport.retry("archive", message(), delay_s=SHORT_S)
        await inbox.wait(1)
    archive, unrecognized = await amqp_transport.inspect(["archive", "unrecognized"])
    assert archive.dead == 1
    assert unrecognized.ready == 1
    assert (await amqp_transport.info()).orphaned == 1


@pytest.mark.parametrize("deleted", ["tiw.events", "tiw.home", "tiw.retry.200ms"])
async def test_an_exchange_that_an_operator_deleted_is_made_anew(
    rabbitmq: RabbitMQServer, amqp_vhost: str, amqp_transport: AmqpTransport, deleted: str
) -> None:
    await asyncio.to_thread(rabbitmq.api, "DELETE", f"exchanges/{amqp_vhost}/{deleted}")
    inbox = Inbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=3):
        await amqp_transport.publish(message("published"))
        await amqp_transport.send("archive", message("sent"))
        await amqp_transport.retry("archive", message("retried"), delay_s=SHORT_S)
        await inbox.wait(3)
    assert set(inbox.event_ids) == {"published", "sent", "retried"}


async def test_a_queue_with_other_arguments_is_named_with_the_remedy(
    rabbitmq: RabbitMQServer, amqp_vhost: str, url: str
) -> None:
    (ours,) = [one for one in topology([ARCHIVE], retry_delays_s=()).queues if one.name == "tiw.archive"]
    arguments = ours.arguments | {"x-delivery-limit": 7}
    queue = {"durable": True, "arguments": arguments}
    await asyncio.to_thread(rabbitmq.api, "PUT", f"queues/{amqp_vhost}/tiw.archive", queue)
    inbox = Inbox()
    with structlog.testing.capture_logs() as logs:
        async with (
            open_amqp(url, confirm_timeout_s=1.5) as transport,
            transport.subscribe(ARCHIVE, inbox, prefetch=1),
        ):
            with pytest.raises(NotPublishedError, match=r"tiw\.archive.*x-delivery-limit.*delete_queue"):
                await transport.publish(message())
            assert not transport.is_ready
            await asyncio.to_thread(delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            await wait_ready(transport)
            await transport.publish(message())
            await inbox.wait(1)
    conflicts = [entry["error"] for entry in logs if entry["event"] == "topology_conflict"]
    assert len(conflicts) == 2
    assert all("x-delivery-limit" in conflict for conflict in conflicts)


async def test_an_exchange_of_another_kind_is_named(rabbitmq: RabbitMQServer, amqp_vhost: str, url: str) -> None:
    exchange = {"type": "fanout", "durable": True}
    await asyncio.to_thread(rabbitmq.api, "PUT", f"exchanges/{amqp_vhost}/tiw.home", exchange)
    async with open_amqp(url, confirm_timeout_s=1.0) as transport:
        with pytest.raises(NotPublishedError, match=r"exchange tiw\.home.*type"):
            await transport.publish(message())


async def test_a_worker_that_is_connected_keeps_its_queue(amqp_transport: AmqpTransport) -> None:
    async with amqp_transport.subscribe(ARCHIVE, Inbox(), prefetch=1) as subscription:
        await holds(lambda: subscription.is_consuming)
        with pytest.raises(BrokerError, match="stop it first"):
            await amqp_transport.remove("archive", force=False)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {
            "tiw-event-id": 7,
            "tiw-attempt": "three",
            "tiw-crashes": -1,
            "tiw-received-at-us": 1.5,
            "tiw-reason": bytearray(b"\xff"),
        },
        {"tiw-attempt": True, "tiw-routing-key": [1, 2], "tiw-trace": {"a": None}, "x-delivery-count": "many"},
        {"when": datetime(2026, 1, 1, tzinfo=UTC), "much": Decimal("1.5"), "x-death": [{"count": 1}], "n": None},
    ],
)
async def test_a_foreign_message_is_taken(
    url: str, amqp_transport: AmqpTransport, headers: dict[str, Any] | None
) -> None:
    body = b'{"EventType":"Strange"}'
    inbox = Inbox()
    async with foreign_channel(url) as channel, amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1):
        properties = aiormq.spec.Basic.Properties(headers=headers, priority=3, content_type="text/plain")
        await channel.basic_publish(body, exchange="", routing_key="tiw.archive", properties=properties)
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    assert delivery.message.event_id == schemas.decode(body, received_at_us=1).event_id
    assert (delivery.message.attempt, delivery.message.crashes, delivery.crashes) == (1, 0, 0)


@pytest.mark.parametrize(
    ("readable", "unreadable"),
    [
        (b"Strange-name", b"Strange-\xff\xfe\xfd\xfc"),
        (b"text/strange", b"\xff" * 12),
        (b"\0\0\0\0\x07[\xcd\x15", b"\x7f" * 8),
    ],
)
async def test_anybody_may_send_what_cannot_be_decoded(
    url: str, amqp_transport: AmqpTransport, readable: bytes, unreadable: bytes
) -> None:
    class Unreadable(aiormq.spec.Basic.Properties):
        def marshal(self) -> bytes:
            whole = super().marshal()
            assert readable in whole
            return whole.replace(readable, unreadable)

    properties = Unreadable(
        headers={"Strange-name": 1},
        content_type="text/strange",
        timestamp=datetime.fromtimestamp(123_456_789, UTC),
        message_id="m",
    )
    inbox = Inbox()
    with structlog.testing.capture_logs() as logs:
        async with foreign_channel(url) as channel, amqp_transport.subscribe(ARCHIVE, inbox, prefetch=2):
            await channel.basic_publish(b"{}", exchange="", routing_key="tiw.archive", properties=properties)
            await inbox.wait(1)
            await amqp_transport.publish(message())
            await inbox.wait(2)
            for delivery in inbox.deliveries:
                assert await delivery.ack()
    assert inbox.messages[0].body == b"{}"
    assert inbox.messages[1] == message()
    assert "broker_lost" not in [entry["event"] for entry in logs]


async def test_a_retry_carries_nothing_that_the_broker_added(url: str, amqp_transport: AmqpTransport) -> None:
    await amqp_transport.retry("archive", message(), delay_s=SHORT_S)
    inbox = Inbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1):
        (delivery,) = await inbox.wait(1)
        await amqp_transport.dead_letter("archive", delivery.message)
        assert await delivery.ack()
    async with foreign_channel(url) as channel:
        dead = await channel.basic_get("tiw.archive.dead", no_ack=True)
    assert dead.header.properties.delivery_mode == 2
    # The broker counts the deliveries of this message too; its history is gone.
    added = {name for name in dead.header.properties.headers or {} if not name.startswith("tiw-")}
    assert added <= {"x-delivery-count"}
