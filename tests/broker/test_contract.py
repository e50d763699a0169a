"""What every transport promises: one suite over all of them."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from broker import BrokerError, Message, OnPublished, Transport
from tests.broker.conftest import MakeTransport
from tests.broker.consumers import ARCHIVE, FINISHED, REPORT, UNRECOGNIZED
from tests.broker.contract import fresh, state_of, wait_ready, wait_released
from tests.broker.inbox import AckingInbox, Inbox, eventually


async def test_what_is_published_is_delivered_with_every_field(transport: Transport) -> None:
    message = Message(
        body=b'{"EventType":"OnlineRecordFinished"}',
        event_id="0123456789abcdef0123456789abcdef",
        routing_key=FINISHED,
        received_at_us=1_575_545_412_123_456,
        attempt=3,
        crashes=2,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        source="reconcile",
        waiting_since_us=1_575_545_412_500_000,
        first_failed_at_us=1_575_545_413_000_000,
        last_failed_at_us=1_575_545_414_000_000,
        reason="the bucket said: nein, d\u00e0nke \U0001f600",
        traceback='Traceback (most recent call last):\n  File "\u5f55.py", line 1, in f\nKeyError: 1',
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
        await transport.publish(fresh())
        (delivery,) = await inbox.wait(1)
    assert delivery.message == fresh()
    assert delivery.crashes == 0


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("of-a-newer_version-2", "of-a-newer_version-2"),
        ("x" * 32, "x" * 32),
        ("x" * 33, ""),
        ("Reconcile", ""),
        ("reconcile\n", ""),
        ("\0", ""),
        ("\N{GRINNING FACE}", ""),
    ],
)
async def test_a_source_that_nobody_knows_is_kept_if_it_is_a_word_and_else_none(
    transport: Transport, said: str, kept: str
) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.send("archive", structs.replace(fresh(), source=said))
        (delivery,) = await inbox.wait(1)
    assert delivery.message == structs.replace(fresh(), source=kept)


async def test_an_event_is_kept_before_any_consumer_has_run(make_transport: MakeTransport) -> None:
    async with make_transport() as ingest:
        await ingest.publish(fresh())
    inbox = Inbox()
    async with make_transport() as worker, worker.subscribe(ARCHIVE, inbox, prefetch=1):
        await inbox.wait(1)
    assert inbox.messages == [fresh()]


async def test_an_event_that_nobody_is_bound_to_is_kept_as_unrecognized(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(UNRECOGNIZED, inbox, prefetch=2):
        await transport.publish(fresh("a" * 32, routing_key="WhiteboardPushStarted"))
        await transport.publish(fresh("b" * 32, routing_key="x" * 300))
        await inbox.wait(2)
    assert [message.routing_key for message in inbox.messages] == ["WhiteboardPushStarted", "x" * 300]


async def test_each_bound_consumer_gets_a_copy_of_its_own(transport: Transport) -> None:
    archive, report = AckingInbox(), Inbox()
    async with (
        transport.subscribe(ARCHIVE, archive, prefetch=5),
        transport.subscribe(REPORT, report, prefetch=5),
    ):
        await transport.publish(fresh())
        await archive.wait(1)
        await report.wait(1)
    await wait_released(transport, "archive", ready=0)
    await wait_released(transport, "report", ready=1)
    assert (await state_of(transport, "finished")).ready == 1


async def test_an_acknowledged_event_is_gone(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.publish(fresh())
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    await wait_released(transport, "archive", ready=0)


async def test_acknowledging_twice_harms_nobody(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
        await transport.publish(fresh("a" * 32))
        (first,) = await inbox.wait(1)
        assert await first.ack()
        await first.ack()
        await transport.publish(fresh("b" * 32))
        _, second = await inbox.wait(2)
        assert await second.ack()
    await wait_released(transport, "archive", ready=0)


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
        await transport.publish(fresh(f"{number}"))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=2):
        await inbox.wait(2)
        assert (await state_of(transport, "archive")).ready == 4
        assert len(inbox) == 2
        await inbox.deliveries[0].ack()
        await inbox.wait(3)
        assert (await state_of(transport, "archive")).ready == 3
        assert len(inbox) == 3


async def test_a_prefetch_of_zero_stops_the_intake_and_what_is_here_can_be_settled(transport: Transport) -> None:
    inbox = Inbox()
    await transport.publish(fresh("a" * 32))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        (delivery,) = await inbox.wait(1)
        await subscription.set_prefetch(0)
        await transport.publish(fresh("b" * 32))
        assert await delivery.ack()
        assert (await state_of(transport, "archive")).ready == 1
        assert len(inbox) == 1
        assert subscription.is_consuming
        await subscription.set_prefetch(1)
        await inbox.wait(2)
        assert await inbox.deliveries[1].ack()
    await wait_released(transport, "archive", ready=0)


async def test_the_prefetch_can_be_raised(transport: Transport) -> None:
    inbox = Inbox()
    for number in range(8):
        await transport.publish(fresh(f"{number}"))
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
        await transport.publish(fresh(f"{number}"))
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
        assert (await state_of(transport, "archive")).connected == 1
    assert not subscription.is_consuming


async def test_two_subscriptions_share_a_queue(make_transport: MakeTransport) -> None:
    first, second = Inbox(), Inbox()
    async with (
        make_transport() as here,
        make_transport() as there,
        here.subscribe(ARCHIVE, first, prefetch=1),
        there.subscribe(ARCHIVE, second, prefetch=1),
    ):
        await here.publish(fresh("a"))
        await there.publish(fresh("b"))
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
        await transport.publish(fresh(body=body))
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
                group.create_task(transport.publish(fresh(event_id)))
        await inbox.wait(300)
        assert set(inbox.event_ids) == expected


class _Ends:
    """What the call-backs of begun publishes were told, by event_id."""

    def __init__(self) -> None:
        self.told: dict[str, list[BrokerError | None]] = {}

    def of(self, event_id: str) -> OnPublished:
        return lambda error: self.told.setdefault(event_id, []).append(error)

    async def wait(self, count: int) -> None:
        async def is_so() -> bool:
            return len(self.told) >= count

        await eventually(is_so)


async def test_a_publish_that_was_begun_ends_once_the_event_is_kept(make_transport: MakeTransport) -> None:
    ends = _Ends()
    async with make_transport() as transport:
        await wait_ready(transport)
        assert transport.begin_publish(fresh("a"), ends.of("a"))
        assert ends.told == {}
        await ends.wait(1)
    inbox = Inbox()
    async with make_transport() as other, other.subscribe(ARCHIVE, inbox, prefetch=1):
        await inbox.wait(1)
    assert inbox.messages == [fresh("a")]
    assert ends.told == {"a": [None]}


async def test_many_begun_at_once_all_end_once_and_arrive(transport: Transport) -> None:
    expected = {f"{number}" for number in range(300)}
    ends, inbox = _Ends(), AckingInbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=20):
        for event_id in expected:
            assert transport.begin_publish(fresh(event_id), ends.of(event_id))
        await inbox.wait(300)
        await ends.wait(300)
    assert set(inbox.event_ids) == expected
    assert ends.told == {event_id: [None] for event_id in expected}


async def test_what_is_begun_and_what_is_published_arrive_in_their_order(transport: Transport) -> None:
    ends, inbox = _Ends(), AckingInbox()
    publishing = []
    for number in range(0, 20, 2):
        assert transport.begin_publish(fresh(f"{number}"), ends.of(f"{number}"))
        publishing.append(asyncio.create_task(transport.publish(fresh(f"{number + 1}"))))
        await asyncio.sleep(0)
    await asyncio.gather(*publishing)
    async with transport.subscribe(ARCHIVE, inbox, prefetch=20):
        await inbox.wait(20)
    assert inbox.event_ids == [f"{number}" for number in range(20)]


async def test_a_call_back_that_raises_stops_no_other(transport: Transport) -> None:
    def raises(error: BrokerError | None) -> None:
        raise RuntimeError(error)

    ends = _Ends()
    for number in range(20):
        begun = ends.of(f"{number}") if number % 2 else raises
        assert transport.begin_publish(fresh(f"{number}"), begun)
    await transport.publish(fresh("after"))
    await ends.wait(10)
    assert all(told == [None] for told in ends.told.values())


async def test_a_begun_event_that_nobody_is_bound_to_is_kept_as_unrecognized(transport: Transport) -> None:
    ends, inbox = _Ends(), Inbox()
    async with transport.subscribe(UNRECOGNIZED, inbox, prefetch=2):
        assert transport.begin_publish(fresh("a", routing_key="WhiteboardPushStarted"), ends.of("a"))
        assert transport.begin_publish(fresh("b", routing_key="x" * 300), ends.of("b"))
        await inbox.wait(2)
        await ends.wait(2)
    assert ends.told == {"a": [None], "b": [None]}


async def test_nothing_is_begun_that_cannot_be_written(transport: Transport) -> None:
    ends = _Ends()
    impossible = structs.replace(fresh("a"), received_at_us=2**64)
    assert not transport.begin_publish(impossible, ends.of("a"))
    assert transport.begin_publish(fresh("b"), ends.of("b"))
    await ends.wait(1)
    assert ends.told == {"b": [None]}


async def test_nothing_is_begun_before_a_transport_is_open_or_after_it_was_closed(
    make_transport: MakeTransport,
) -> None:
    ends = _Ends()
    transport = make_transport()
    assert not transport.begin_publish(fresh("a"), ends.of("a"))
    async with transport:
        await wait_ready(transport)
    assert not transport.begin_publish(fresh("b"), ends.of("b"))
    assert ends.told == {}


async def test_what_was_begun_when_a_transport_is_closed_still_ends_once(make_transport: MakeTransport) -> None:
    ends = _Ends()
    async with make_transport() as transport:
        await wait_ready(transport)
        for number in range(50):
            assert transport.begin_publish(fresh(f"{number}"), ends.of(f"{number}"))
    assert len(ends.told) == 50
    assert all(len(told) == 1 for told in ends.told.values())
    kept = [event_id for event_id, (error,) in ends.told.items() if error is None]
    inbox = Inbox()
    async with make_transport() as other, other.subscribe(ARCHIVE, inbox, prefetch=60):
        await inbox.wait(len(kept))
    assert {*kept} <= {*inbox.event_ids}


async def test_closing_with_unsettled_deliveries_loses_nothing(make_transport: MakeTransport) -> None:
    inbox = Inbox()
    async with make_transport() as transport:
        for number in range(30):
            await transport.publish(fresh(f"{number}"))
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
        await wait_ready(transport)
        assert transport.is_ready


async def test_a_transport_says_what_it_is(transport: Transport) -> None:
    info = await transport.info()
    assert info.product
    assert info.version
    assert info.orphaned == 0
