"""What every transport promises of retries, dead letters, and of looking at queues and removing them."""

import asyncio

import pytest

from broker import MAX_TRACEBACK_BYTES, BrokerError, Message, MissingQueueError, NotPublishedError, Transport
from tests.broker.consumers import ARCHIVE, FINISHED, GONE, LONG_S, SHORT_S
from tests.broker.contract import fresh, state_of, wait_released
from tests.broker.inbox import Inbox, eventually


async def test_a_retry_waits_for_its_delay_and_a_short_one_overtakes_a_long_one(transport: Transport) -> None:
    failed = Message(
        body=b"\x00\xff",
        event_id="long",
        routing_key=FINISHED,
        received_at_us=1,
        attempt=2,
        source="reconcile",
        waiting_since_us=2,
        first_failed_at_us=3,
        last_failed_at_us=4,
        reason="first",
        traceback="\u5f55\n" * (MAX_TRACEBACK_BYTES // 4),
    )
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        start_s = loop.time()
        await transport.retry("archive", failed, delay_s=LONG_S)
        await transport.retry("archive", fresh("short"), delay_s=SHORT_S)
        await inbox.wait(1)
        assert loop.time() - start_s >= SHORT_S
        await inbox.wait(2)
        assert loop.time() - start_s >= LONG_S
    assert inbox.messages == [fresh("short"), failed]
    assert [delivery.crashes for delivery in inbox.deliveries] == [0, 0]


async def test_a_retry_goes_to_one_consumer_only(transport: Transport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        await transport.retry("archive", fresh(), delay_s=SHORT_S)
        await inbox.wait(1)
    assert (await state_of(transport, "report")).ready == 0


async def test_a_delay_that_the_ladder_lacks_is_refused(transport: Transport) -> None:
    with pytest.raises(BrokerError, match="no retry delay of 77 s") as refusal:
        await transport.retry("archive", fresh(), delay_s=77)
    assert not isinstance(refusal.value, NotPublishedError), "the workers would try again for ever"


async def test_a_hundred_retries_for_a_removed_consumer_delay_nobody(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(transport.retry("gone", fresh(f"{number}"), delay_s=SHORT_S))
        await transport.retry("archive", fresh(), delay_s=SHORT_S)
        await inbox.wait(1, timeout_s=10)

    async def all_are_orphaned() -> bool:
        return (await transport.info()).orphaned == 100

    await eventually(all_are_orphaned)
    assert not (await state_of(transport, GONE.consumer)).exists


async def test_what_is_sent_reaches_one_consumer_only(transport: Transport) -> None:
    await transport.send("archive", fresh())
    states = await transport.inspect(["archive", "report", "finished"])
    assert [state.ready for state in states] == [1, 0, 0]


async def test_what_is_sent_to_nobody_is_orphaned(transport: Transport) -> None:
    await transport.send("never_existed", fresh())
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
    await wait_released(transport, "archive", ready=0, dead=1)
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1, dead=True):
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    await wait_released(transport, "archive", ready=0, dead=0)


async def test_the_dead_letters_of_a_removed_consumer_are_kept(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    await transport.dead_letter("gone", fresh())
    assert (await state_of(transport, "gone")).dead == 1


async def test_queues_can_be_counted(transport: Transport) -> None:
    for number in range(3):
        await transport.send("archive", fresh(f"{number}"))
    await transport.dead_letter("archive", fresh())
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
    await transport.send("gone", fresh())
    with pytest.raises(BrokerError):
        await transport.remove("gone", force=False)
    assert (await state_of(transport, "gone")).ready == 1


async def test_a_consumer_is_not_removed_while_dead_letters_wait(transport: Transport) -> None:
    await transport.dead_letter("gone", fresh())
    with pytest.raises(BrokerError):
        await transport.remove("gone", force=False)
    assert (await state_of(transport, "gone")).dead == 1


async def test_a_consumer_can_be_removed_by_force(transport: Transport) -> None:
    await transport.send("gone", fresh())
    await transport.remove("gone", force=True)
    assert not (await state_of(transport, "gone")).exists


async def test_a_consumer_that_is_not_there_cannot_be_removed(transport: Transport) -> None:
    await transport.remove("gone", force=False)
    with pytest.raises(MissingQueueError):
        await transport.remove("gone", force=True)


async def test_what_waits_for_its_next_attempt_is_counted_until_it_comes(transport: Transport) -> None:
    async def is_counted() -> bool:
        # Again and again: on a slow machine it has come home before it is looked.
        await transport.retry("archive", fresh(), delay_s=LONG_S)
        return await transport.count_retrying() > 0

    async def none_is_left() -> bool:
        return await transport.count_retrying() == 0

    await eventually(is_counted)
    await eventually(none_is_left)
