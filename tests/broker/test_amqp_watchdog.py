"""Consumers that the broker has forgotten, and those that only look like it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import structlog

from broker import Message
from broker.amqp.consuming import AmqpSubscription, ChannelDeliveries, Watchdog
from broker.amqp.transport import AmqpTransport
from telemetry import metrics
from tests.broker.consumers import ARCHIVE, CONSUMERS, FINISHED, LADDER
from tests.broker.inbox import AckingInbox, Inbox, eventually
from tests.servers.rabbitmq import RabbitMQServer

#: So short that what must not be disturbed would be within a second.
_SHARP = Watchdog(look_after_s=0.1, sure_after_s=0.1, renew_idle_after_s=0.3, renew_after_s=0.3)
#: Takes no broker for silent that is only slow to deliver, as one is on a busy machine.
_RENEWING = Watchdog(look_after_s=600, sure_after_s=0.1, renew_idle_after_s=0.3, renew_after_s=0.3)


@pytest.fixture
def watchdog() -> Watchdog:
    return _SHARP


@pytest.fixture
async def transport(rabbitmq: RabbitMQServer, amqp_vhost: str, watchdog: Watchdog) -> AsyncIterator[AmqpTransport]:
    opened = AmqpTransport([rabbitmq.url(amqp_vhost)], consumers=CONSUMERS, retry_delays_s=LADDER, watchdog=watchdog)
    async with opened, asyncio.timeout(60):
        await opened.wait_ready()
        yield opened


def _message(event_id: str) -> Message:
    return Message(body=b"{}", event_id=event_id, routing_key=FINISHED, received_at_us=1)


async def _holds(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def _deliveries(subscription: AmqpSubscription) -> ChannelDeliveries:
    await _holds(lambda: subscription._deliveries is not None and subscription._deliveries.is_open)
    assert subscription._deliveries is not None
    return subscription._deliveries


async def test_a_consumer_whose_queue_has_events_that_do_not_come_is_subscribed_anew(transport: AmqpTransport) -> None:
    inbox = AckingInbox()
    counter = metrics.SILENT_CONSUMERS.labels("tiw.archive")
    before = counter._value.get()
    with structlog.testing.capture_logs() as logs:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=5) as subscription:
            deliveries = await _deliveries(subscription)
            # The broker has no such consumer any more, and nobody here knows.
            assert deliveries._consumer_tag is not None
            await deliveries._channel.basic_cancel(deliveries._consumer_tag)
            assert subscription.is_consuming
            await transport.publish(_message("waits"))
            await inbox.wait(1)
    assert counter._value.get() > before
    assert "silent" in next(entry["error"] for entry in logs if entry["event"] == "consumer_lost")


@pytest.mark.parametrize("watchdog", [_RENEWING], ids=["renewing"])
async def test_what_the_broker_wrongly_counts_as_delivered_comes_again(
    transport: AmqpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = AckingInbox()
    on_arrival = ChannelDeliveries._on_arrival
    arrived = 0

    def lose_the_second(self: ChannelDeliveries, arrival: object) -> None:
        nonlocal arrived
        arrived += 1
        if arrived != 2:
            on_arrival(self, arrival)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(ChannelDeliveries, "_on_arrival", lose_the_second)
    with structlog.testing.capture_logs() as logs:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
            await transport.publish(_message("first"))
            await inbox.wait(1)
            await transport.publish(_message("lost"))
            await inbox.wait(2)
    assert inbox.event_ids == ["first", "lost"]
    told = {entry["event"] for entry in logs}
    assert "consumer_lost" not in told or "broker_lost" in told


async def test_a_consumer_that_is_slow_or_paused_is_left_alone(transport: AmqpTransport) -> None:
    inbox = Inbox()
    for number in range(5):
        await transport.publish(_message(f"{number}"))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=2) as subscription:
        slow, other = await inbox.wait(2)
        deliveries = await _deliveries(subscription)
        # Far longer than an idle one would be left alone, with more in the queue.
        await asyncio.sleep(1)
        assert subscription._deliveries is deliveries
        assert await other.ack()
        await inbox.wait(3)
        await subscription.set_prefetch(0)
        assert await slow.ack()
        assert await inbox.deliveries[2].ack()
        await asyncio.sleep(1)
        assert subscription._deliveries is deliveries
        assert len(inbox) == 3
        await subscription.set_prefetch(5)
        await inbox.wait(5)
    assert all(delivery.crashes == 0 for delivery in inbox.deliveries)
