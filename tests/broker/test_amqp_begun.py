"""Publishes that were begun, when the broker, the connection or the exchange goes away: each ends once."""

import asyncio

from broker import BrokerError, Message, NotPublishedError, OnPublished
from broker.amqp.transport import AmqpTransport
from tests.broker.amqp_broker import foreign_channel, holds, open_amqp, paused, wait_ready
from tests.broker.consumers import ARCHIVE, FINISHED
from tests.broker.inbox import AckingInbox
from tests.servers.rabbitmq import RabbitMQServer

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _plain(number: int) -> Message:
    return Message(
        body=b"{}", event_id=f"{number:032x}", routing_key=FINISHED, received_at_us=1_575_545_412_000_001, trace=_TRACE
    )


class _Ends:
    """What each call-back was told, by event_id."""

    def __init__(self) -> None:
        self.told: dict[str, list[BrokerError | None]] = {}

    def of(self, message: Message) -> OnPublished:
        return self.told.setdefault(message.event_id, []).append

    def begin(self, transport: AmqpTransport, numbers: range) -> None:
        for message in map(_plain, numbers):
            assert transport.begin_publish(message, self.of(message))

    @property
    def kept(self) -> set[str]:
        return {event_id for event_id, told in self.told.items() if told == [None]}

    async def wait(self) -> None:
        await holds(lambda: all(self.told.values()))
        assert {len(told) for told in self.told.values()} == {1}


async def test_a_broker_that_is_killed_between_write_and_confirm_loses_nothing(
    rabbitmq: RabbitMQServer, url: str
) -> None:
    ends, inbox = _Ends(), AckingInbox()
    try:
        async with open_amqp(url, confirm_timeout_s=0.5) as transport:
            await wait_ready(transport)
            ends.begin(transport, range(200))
            await holds(lambda: len(ends.kept) > 50)
            ends.begin(transport, range(200, 2000))
            await asyncio.sleep(0)
            # They are written, and only some of them are confirmed.
            await asyncio.to_thread(rabbitmq.kill)
            await ends.wait()
            assert not transport.begin_publish(_plain(0), ends.of(_plain(0)))
            await asyncio.to_thread(rabbitmq.start)
            await wait_ready(transport)
            ends.begin(transport, range(2000, 2100))
            await ends.wait()
            async with transport.subscribe(ARCHIVE, inbox, prefetch=100):
                await holds(lambda: ends.kept <= set(inbox.event_ids))
    finally:
        await asyncio.to_thread(rabbitmq.start)
    failed = [told for (told,) in ends.told.values() if told is not None]
    assert {type(error) for error in failed} <= {NotPublishedError}


async def test_what_a_lost_connection_took_along_is_published_again(
    rabbitmq: RabbitMQServer, amqp_vhost: str, amqp_transport: AmqpTransport
) -> None:
    ends, inbox = _Ends(), AckingInbox()
    with paused(rabbitmq):
        ends.begin(amqp_transport, range(300))
        await asyncio.sleep(0)
        amqp_transport._publishing._connection.abort("cut")  # type: ignore[union-attr]
    await ends.wait()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=100):
        await holds(lambda: set(ends.told) <= set(inbox.event_ids))
    assert ends.kept == set(ends.told)


async def test_what_is_not_confirmed_in_time_fails_once_and_then(rabbitmq: RabbitMQServer, url: str) -> None:
    ends = _Ends()
    loop = asyncio.get_running_loop()
    async with open_amqp(url, confirm_timeout_s=0.5) as transport:
        await wait_ready(transport)
        with paused(rabbitmq):
            began_s = loop.time()
            ends.begin(transport, range(50))
            await holds(lambda: all(ends.told.values()))
            assert loop.time() - began_s < 2
        await wait_ready(transport)
        await ends.wait()
    assert {type(error) for told in ends.told.values() for error in told} == {NotPublishedError}


async def test_an_exchange_that_somebody_deleted_is_made_anew_for_what_was_begun(
    url: str, amqp_transport: AmqpTransport
) -> None:
    ends, inbox = _Ends(), AckingInbox()
    async with foreign_channel(url) as channel:
        await channel.exchange_delete("tiw.events")
    ends.begin(amqp_transport, range(20))
    await ends.wait()
    assert ends.kept == set(ends.told)
    # Its bindings went with it: what was kept is unrecognized until a consumer binds its queue again.
    states = await amqp_transport.inspect(["unrecognized", "archive"])
    assert sum(state.ready for state in states) >= 20
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=100):
        await amqp_transport.publish(_plain(100))
        await inbox.wait(1)


async def test_call_backs_that_raise_stop_no_other_when_a_connection_is_lost(
    rabbitmq: RabbitMQServer, url: str
) -> None:
    def raises(error: BrokerError | None) -> None:
        raise RuntimeError(error)

    ends = _Ends()
    async with open_amqp(url, confirm_timeout_s=0.5) as transport:
        await wait_ready(transport)
        with paused(rabbitmq):
            for number in range(20):
                message = _plain(number)
                assert transport.begin_publish(message, ends.of(message) if number % 2 else raises)
            await ends.wait()
        await wait_ready(transport)
        await transport.publish(_plain(100))


async def test_what_was_begun_ends_once_when_the_transport_is_closed_before_it_is_published_again(
    rabbitmq: RabbitMQServer, url: str
) -> None:
    ends = _Ends()
    async with open_amqp(url) as transport:
        await wait_ready(transport)
        with paused(rabbitmq):
            ends.begin(transport, range(20))
            await asyncio.sleep(0)
            transport._publishing._connection.abort("cut")  # type: ignore[union-attr]
            # They wait for a connection by now.
            await holds(lambda: len(transport._publisher._beside_tasks) >= 20)
            await transport.__aexit__(None, None, None)
    assert [type(error) for told in ends.told.values() for error in told] == [NotPublishedError] * 20
