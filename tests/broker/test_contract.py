"""What every transport promises: one suite over all of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import BrokerError, Message, MissingQueueError, NotPublishedError, QueueState, Transport
from tests.broker.conftest import MakeTransport
from tests.broker.consumers import ARCHIVE, FINISHED, GONE, LONG_S, REPORT, SHORT_S, UNRECOGNIZED
from tests.broker.inbox import AckingInbox, Inbox, eventually


@pytest.fixture
async def transport(make_transport: MakeTransport) -> AsyncIterator[Transport]:
    async with make_transport() as opened:
        await _ready(opened)
        yield opened


async def _ready(transport: Transport) -> None:
    async with asyncio.timeout(20):
        await transport.wait_ready()


def _message(event_id: str = "e" * 32, *, body: bytes = b"{}", routing_key: str = FINISHED) -> Message:
    return Message(body=body, event_id=event_id, routing_key=routing_key, received_at_us=1_575_545_412_000_001)


async def _state(transport: Transport, consumer: str) -> QueueState:
    (state,) = await transport.inspect([consumer])
    return state


async def _released(transport: Transport, consumer: str, *, ready: int, dead: int = 0) -> None:
    """Wait until nobody consumes, and just so many wait."""

    async def is_so() -> bool:
        state = await _state(transport, consumer)
        return (state.connected, state.ready, state.dead) == (0, ready, dead)

    await eventually(is_so)


async def test_what_is_published_is_delivered_with_every_field(transport: Transport) -> None:
    message = Message(
        body=b'{"EventType":"OnlineRecordFinished"}',
        event_id="0123456789abcdef0123456789abcdef",
        routing_key=FINISHED,
        received_at_us=1_575_545_412_123_456,
        attempt=3,
        crashes=2,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        first_failed_at_us=1_575_545_413_000_000,
        last_failed_at_us=1_575_545_414_000_000,
        reason="the bucket said: nein, d\u00e0nke \U0001f600",
    )
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.publish(message)
        (delivery,) = await inbox.wait(1)
    assert delivery.message == message
    assert delivery.crashes == 2


async def test_a_fresh_event_is_delivered_as_it_was_published(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.publish(_message())
        (delivery,) = await inbox.wait(1)
    assert delivery.message == _message()
    assert delivery.crashes == 0


async def test_an_event_is_kept_before_any_consumer_has_run(make_transport: MakeTransport) -> None:
    async with make_transport() as ingest:
        await ingest.publish(_message())
    inbox = Inbox()
    async with make_transport() as worker, worker.subscribe(ARCHIVE, inbox, prefetch=1):
        await inbox.wait(1)
    assert inbox.messages == [_message()]


async def test_an_event_that_nobody_is_bound_to_is_kept_as_unrecognized(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(UNRECOGNIZED, inbox, prefetch=2):
        await transport.publish(_message("a" * 32, routing_key="WhiteboardPushStarted"))
        await transport.publish(_message("b" * 32, routing_key="x" * 300))
        await inbox.wait(2)
    assert [message.routing_key for message in inbox.messages] == ["WhiteboardPushStarted", "x" * 300]


async def test_each_bound_consumer_gets_a_copy_of_its_own(transport: Transport) -> None:
    archive, report = AckingInbox(), Inbox()
    async with (
        transport.subscribe(ARCHIVE, archive, prefetch=5),
        transport.subscribe(REPORT, report, prefetch=5),
    ):
        await transport.publish(_message())
        await archive.wait(1)
        await report.wait(1)
    await _released(transport, "archive", ready=0)
    await _released(transport, "report", ready=1)
    assert (await _state(transport, "finished")).ready == 1


async def test_an_acknowledged_event_is_gone(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.publish(_message())
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    await _released(transport, "archive", ready=0)


async def test_acknowledging_twice_harms_nobody(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
        await transport.publish(_message("a" * 32))
        (first,) = await inbox.wait(1)
        assert await first.ack()
        await first.ack()
        await transport.publish(_message("b" * 32))
        _, second = await inbox.wait(2)
        assert await second.ack()
    await _released(transport, "archive", ready=0)


async def test_what_is_not_settled_comes_back_and_counts_as_a_crash(transport: Transport) -> None:
    seen = []
    await transport.send(
        "archive", Message(body=b"{}", event_id="e", routing_key=FINISHED, received_at_us=1, crashes=4)
    )
    for _ in range(3):
        inbox = Inbox()
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
            (delivery,) = await inbox.wait(1)
            seen.append(delivery.crashes)
    assert seen == [4, 5, 6]


async def test_the_prefetch_bounds_what_is_unsettled(transport: Transport) -> None:
    inbox = Inbox()
    for number in range(6):
        await transport.publish(_message(f"{number}"))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
        await inbox.wait(2)
        assert (await _state(transport, "archive")).ready == 4
        assert len(inbox) == 2
        await inbox.deliveries[0].ack()
        await inbox.wait(3)
        assert (await _state(transport, "archive")).ready == 3
        assert len(inbox) == 3


async def test_a_prefetch_of_zero_stops_the_intake_and_what_is_here_can_be_settled(transport: Transport) -> None:
    inbox = Inbox()
    await transport.publish(_message("a" * 32))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        (delivery,) = await inbox.wait(1)
        await subscription.set_prefetch(0)
        await transport.publish(_message("b" * 32))
        assert await delivery.ack()
        assert (await _state(transport, "archive")).ready == 1
        assert len(inbox) == 1
        assert subscription.is_consuming
        await subscription.set_prefetch(1)
        await inbox.wait(2)
        assert await inbox.deliveries[1].ack()
    await _released(transport, "archive", ready=0)


async def test_the_prefetch_can_be_raised(transport: Transport) -> None:
    inbox = Inbox()
    for number in range(8):
        await transport.publish(_message(f"{number}"))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        await inbox.wait(1)
        await subscription.set_prefetch(3)
        await inbox.wait(3)
        await transport.inspect(["archive"])
        assert len(inbox) == 3
        for delivery in list(inbox.deliveries):
            assert await delivery.ack()
        await inbox.wait(6)
        await transport.inspect(["archive"])
        assert sorted(inbox.event_ids) == ["0", "1", "2", "3", "4", "5"]


async def test_the_prefetch_can_be_lowered(transport: Transport) -> None:
    inbox = Inbox()
    for number in range(8):
        await transport.publish(_message(f"{number}"))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=4) as subscription:
        await inbox.wait(4)
        await subscription.set_prefetch(1)
        for delivery in inbox.deliveries[:3]:
            assert await delivery.ack()
        await transport.inspect(["archive"])
        assert len(inbox) == 4
        assert await inbox.deliveries[3].ack()
        await inbox.wait(5)
        await transport.inspect(["archive"])
        assert len(inbox) == 5


async def test_a_subscription_tells_whether_it_consumes(transport: Transport) -> None:
    subscription = transport.subscribe(ARCHIVE, Inbox(), prefetch=1)
    assert not subscription.is_consuming

    async def consumes() -> bool:
        return subscription.is_consuming

    async with subscription:
        await eventually(consumes)
        assert (await _state(transport, "archive")).connected == 1
    assert not subscription.is_consuming


async def test_a_retry_waits_for_its_delay_and_a_short_one_overtakes_a_long_one(transport: Transport) -> None:
    failed = Message(
        body=b"\x00\xff",
        event_id="long",
        routing_key=FINISHED,
        received_at_us=1,
        attempt=2,
        first_failed_at_us=3,
        last_failed_at_us=4,
        reason="first",
    )
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        start_s = loop.time()
        await transport.retry("archive", failed, delay_s=LONG_S)
        await transport.retry("archive", _message("short"), delay_s=SHORT_S)
        await inbox.wait(1)
        assert loop.time() - start_s >= SHORT_S
        await inbox.wait(2)
        assert loop.time() - start_s >= LONG_S
    assert inbox.messages == [_message("short"), failed]
    assert [delivery.crashes for delivery in inbox.deliveries] == [0, 0]


async def test_a_retry_goes_to_one_consumer_only(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        await transport.retry("archive", _message(), delay_s=SHORT_S)
        await inbox.wait(1)
    assert (await _state(transport, "report")).ready == 0


async def test_a_delay_that_the_ladder_lacks_is_refused(transport: Transport) -> None:
    with pytest.raises(BrokerError, match="no retry delay of 77 s") as refusal:
        await transport.retry("archive", _message(), delay_s=77)
    assert not isinstance(refusal.value, NotPublishedError), "the workers would try again for ever"


async def test_a_hundred_retries_for_a_removed_consumer_delay_nobody(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(transport.retry("gone", _message(f"{number}"), delay_s=SHORT_S))
        await transport.retry("archive", _message(), delay_s=SHORT_S)
        await inbox.wait(1, timeout_s=10)

    async def all_are_orphaned() -> bool:
        return (await transport.info()).orphaned == 100

    await eventually(all_are_orphaned)
    assert not (await _state(transport, GONE.consumer)).exists


async def test_what_is_sent_reaches_one_consumer_only(transport: Transport) -> None:
    await transport.send("archive", _message())
    states = await transport.inspect(["archive", "report", "finished"])
    assert [state.ready for state in states] == [1, 0, 0]


async def test_what_is_sent_to_nobody_is_orphaned(transport: Transport) -> None:
    await transport.send("never_existed", _message())
    assert (await transport.info()).orphaned == 1


async def test_a_dead_letter_is_not_lost_by_being_looked_at(transport: Transport) -> None:
    dead = Message(body=b"{}", event_id="d", routing_key=FINISHED, received_at_us=1, attempt=8, reason="it said no")
    await transport.dead_letter("archive", dead)
    # More often than the delivery limit that RabbitMQ 4 sets by default, which is 20.
    for _ in range(25):
        inbox = Inbox()
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1, dead=True):
            (delivery,) = await inbox.wait(1)
            assert delivery.message == dead
    await _released(transport, "archive", ready=0, dead=1)
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1, dead=True):
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    await _released(transport, "archive", ready=0, dead=0)


async def test_the_dead_letters_of_a_removed_consumer_are_kept(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    await transport.dead_letter("gone", _message())
    assert (await _state(transport, "gone")).dead == 1


async def test_queues_can_be_counted(transport: Transport) -> None:
    for number in range(3):
        await transport.send("archive", _message(f"{number}"))
    await transport.dead_letter("archive", _message())
    archive, nobody, report = await transport.inspect(["archive", "nobody", "report"])
    assert (archive.consumer, archive.exists, archive.ready, archive.connected, archive.dead) == (
        "archive",
        True,
        3,
        0,
        1,
    )
    assert (nobody.consumer, nobody.exists, nobody.ready) == ("nobody", False, 0)
    assert (report.consumer, report.exists, report.ready, report.dead) == ("report", True, 0, 0)
    assert await transport.inspect([]) == []


async def test_a_consumer_is_not_removed_while_events_wait(transport: Transport) -> None:
    await transport.send("gone", _message())
    with pytest.raises(BrokerError):
        await transport.remove("gone", force=False)
    assert (await _state(transport, "gone")).ready == 1


async def test_a_consumer_is_not_removed_while_dead_letters_wait(transport: Transport) -> None:
    await transport.dead_letter("gone", _message())
    with pytest.raises(BrokerError):
        await transport.remove("gone", force=False)
    assert (await _state(transport, "gone")).dead == 1


async def test_a_consumer_can_be_removed_by_force(transport: Transport) -> None:
    await transport.send("gone", _message())
    await transport.remove("gone", force=True)
    assert not (await _state(transport, "gone")).exists


async def test_a_consumer_that_is_not_there_cannot_be_removed(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    with pytest.raises(MissingQueueError):
        await transport.remove("gone", force=True)


async def test_two_subscriptions_share_a_queue(make_transport: MakeTransport) -> None:
    first, second = Inbox(), Inbox()
    async with (
        make_transport() as here,
        make_transport() as there,
        here.subscribe(ARCHIVE, first, prefetch=1),
        there.subscribe(ARCHIVE, second, prefetch=1),
    ):
        await here.publish(_message("a"))
        await there.publish(_message("b"))
        await first.wait(1)
        await second.wait(1)
        assert {*first.event_ids, *second.event_ids} == {"a", "b"}
        assert len(first) == len(second) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=4096), reason=st.text(max_size=300), trace=st.text(max_size=60))
async def test_any_bytes_and_any_text_travel(transport: Transport, body: bytes, reason: str, trace: str) -> None:
    message = Message(
        body=body, event_id="e", routing_key=FINISHED, received_at_us=1, reason=reason, trace=trace, attempt=2
    )
    inbox = AckingInbox()
    async with transport.subscribe(REPORT, inbox, prefetch=1):
        await transport.send("report", message)
        (delivery,) = await inbox.wait(1)
        await delivery.ack()
    assert delivery.message == message


async def test_a_large_body_travels(transport: Transport) -> None:
    body = bytes(range(256)) * 4096
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.publish(_message(body=body))
        (delivery,) = await inbox.wait(1)
    assert delivery.message.body == body


async def test_a_long_reason_is_no_obstacle(transport: Transport) -> None:
    reason = "\ud800" + "why? " * 100_000
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.send(
            "archive", Message(body=b"", event_id="e", routing_key=FINISHED, received_at_us=1, reason=reason)
        )
        (delivery,) = await inbox.wait(1)
    assert "why? why? why?" in delivery.message.reason


async def test_many_at_once_all_arrive(transport: Transport) -> None:
    expected = {f"{number}" for number in range(300)}
    inbox = AckingInbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=20):
        async with asyncio.TaskGroup() as group:
            for event_id in expected:
                group.create_task(transport.publish(_message(event_id)))
        await inbox.wait(300)
        assert set(inbox.event_ids) == expected


async def test_closing_with_unsettled_deliveries_loses_nothing(make_transport: MakeTransport) -> None:
    inbox = Inbox()
    async with make_transport() as transport:
        for number in range(30):
            await transport.publish(_message(f"{number}"))
        async with transport.subscribe(ARCHIVE, inbox, prefetch=10):
            await inbox.wait(10)
            settled = [delivery.message.event_id for delivery in inbox.deliveries[:4] if await delivery.ack()]
    rest = AckingInbox()
    async with make_transport() as transport, transport.subscribe(ARCHIVE, rest, prefetch=50):
        await rest.wait(30 - len(settled))
    assert {*settled, *rest.event_ids} == {f"{number}" for number in range(30)}


async def test_an_open_transport_becomes_ready(make_transport: MakeTransport) -> None:
    transport = make_transport()
    assert not transport.is_ready
    async with transport:
        await _ready(transport)
        assert transport.is_ready


async def test_a_transport_says_what_it_is(transport: Transport) -> None:
    info = await transport.info()
    assert info.product
    assert info.version
    assert info.orphaned == 0
