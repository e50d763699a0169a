"""What a process publishes to a consumer of its own is handed over as it is committed, and never was ready."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import Delivery, EmbeddedTransport, Message, NotPublishedError
from broker.embedded.commit import Level, Transaction
from broker.embedded.queues import _read, _written
from tests.broker.consumers import ARCHIVE, CONSUMERS, REPORT
from tests.broker.embedded_child import message
from tests.broker.inbox import AckingInbox, Inbox, eventually

_texts = st.text() | st.text(st.characters(categories=["Cs", "L"]))
_numbers = st.integers(-(2**63), 2**63)


@given(
    st.builds(
        Message,
        body=st.binary() | st.binary().map(bytearray),
        event_id=_texts,
        routing_key=_texts,
        received_at_us=_numbers,
        attempt=_numbers,
        crashes=_numbers,
        trace=_texts,
        source=_texts | st.sampled_from(["reconcile", "archive", "x" * 33]),
        waiting_since_us=st.none() | _numbers,
        first_failed_at_us=st.none() | _numbers,
        last_failed_at_us=st.none() | _numbers,
        reason=_texts,
        traceback=_texts,
    )
)
def test_what_is_handed_over_is_what_would_be_read(one: Message) -> None:
    encoded, read = _written(one)
    if read is not None:
        assert _read(encoded) == read
        assert type(_read(encoded).body) is type(read.body)


def test_a_plain_message_can_be_handed_over_and_what_has_to_be_mended_cannot() -> None:
    assert _written(message("a"))[1] == message("a")
    assert _written(msgspec.structs.replace(message("a"), reason="\udc00"))[1] is None
    assert _written(msgspec.structs.replace(message("a"), source="No Word"))[1] is None


def _traced(transport: EmbeddedTransport, statements: list[str]) -> "asyncio.Future[None]":
    def trace(transaction: Transaction) -> None:
        transaction._connection.set_trace_callback(statements.append)

    return transport._commits.submit(trace, Level.READ)


async def _claimed(transport: EmbeddedTransport) -> list[tuple[int, int]]:
    states = await transport.inspect(["archive", "report"])
    return [(state.ready, state.unacked or 0) for state in states]


async def test_nothing_is_claimed_that_comes_while_its_consumer_has_room(tmp_path: Path) -> None:
    statements: list[str] = []
    archive, report = AckingInbox(), Inbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, archive, prefetch=50) as one,
        transport.subscribe(REPORT, report, prefetch=50) as other,
    ):
        await transport.publish(message("first"))
        await report.wait(1)
        await archive.wait(1)

        async def have_all() -> bool:
            return all(subscription._taker.has_all and subscription._claiming is None for subscription in (one, other))

        await eventually(have_all)
        await _traced(transport, statements)
        for start in (0, 10, 20):
            await asyncio.gather(*(transport.publish(message(f"{number}")) for number in range(start, start + 10)))
        await report.wait(31)
        await archive.wait(31)
        assert not [one for one in statements if one.startswith("UPDATE")]
        assert await _claimed(transport) == [(0, 0), (0, 31)]
        assert report.event_ids == ["first", *(f"{number}" for number in range(30))]
        await asyncio.gather(*(delivery.ack() for delivery in report.deliveries))
        assert await _claimed(transport) == [(0, 0), (0, 0)]


async def test_what_there_is_no_room_for_waits_and_comes_in_order(tmp_path: Path) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
            await asyncio.gather(*(transport.publish(message(f"{number}")) for number in range(10)))
            await inbox.wait(3)
            assert await _claimed(transport) == [(7, 3), (10, 0)]
            for count in range(4, 11):
                assert await inbox.deliveries[count - 4].ack()
                # One more is published for each that is settled: it must not overtake.
                await transport.publish(message(f"{count + 6}"))
                await inbox.wait(count)
        assert inbox.event_ids == [f"{number}" for number in range(10)]


async def test_a_lower_prefetch_holds_once_it_is_set(tmp_path: Path) -> None:
    inbox = Inbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=100) as subscription,
    ):
        await transport.publish(message("first"))
        await inbox.wait(1)
        publishing = asyncio.gather(*(transport.publish(message(f"{number}")) for number in range(20)))
        await asyncio.sleep(0)
        await subscription.set_prefetch(0)
        had = len(inbox)
        await publishing
        await transport.publish(message("last"))
        assert len(inbox) == had
        await subscription.set_prefetch(100)
        await inbox.wait(22)
        assert sorted(inbox.event_ids) == sorted(["first", "last", *(f"{number}" for number in range(20))])


async def test_what_was_not_committed_is_handed_to_nobody_and_takes_no_room(tmp_path: Path) -> None:
    inbox = Inbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=2),
    ):
        with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON messages WHEN instr(new.message, 'poison') "
                "BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
            )
        for number in range(5):
            results = await asyncio.gather(
                transport.publish(message("poison")), transport.publish(message(f"{number}")), return_exceptions=True
            )
            assert [type(result) for result in results] == [NotPublishedError, type(None)]
            await inbox.wait(number + 1)
            assert await inbox.deliveries[number].ack()
        assert inbox.event_ids == [f"{number}" for number in range(5)]


async def test_a_consumer_that_others_let_go_of_is_handed_nothing_until_it_is_known_again(tmp_path: Path) -> None:
    inbox = Inbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=5),
    ):
        await transport.publish(message("a"))
        await inbox.wait(1)
        with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as other:
            other.execute("DELETE FROM subscriptions")
        await transport.publish(message("b"))
        await inbox.wait(2)
        (state,) = await transport.inspect(["archive"])
        assert (state.unacked, state.connected) == (2, 1)


async def test_what_others_put_back_and_comes_again_takes_the_room_of_one(tmp_path: Path) -> None:
    inbox = Inbox()
    async with (
        EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=2),
    ):
        await transport.publish(message("a"))
        await inbox.wait(1)
        with closing(sqlite3.connect(tmp_path / "transport.db", isolation_level=None)) as other:
            # As a process does that takes this one for dead.
            other.execute("UPDATE messages SET claimed_by = NULL, deliveries = deliveries + 1 WHERE claimed_by NOTNULL")
            other.execute("DELETE FROM subscriptions")
        await transport.publish(message("b"))
        await inbox.wait(3)
        assert all(await asyncio.gather(*(delivery.ack() for delivery in inbox.deliveries[:2])))
        await transport.publish(message("c"))
        await inbox.wait(4)
        assert inbox.event_ids == ["a", "a", "b", "c"]


@pytest.mark.parametrize("is_settled", [True, False])
async def test_what_was_handed_over_returns_if_its_consumer_leaves_before_it_is_settled(
    tmp_path: Path, *, is_settled: bool
) -> None:
    inbox = Inbox()
    async with EmbeddedTransport(tmp_path, consumers=CONSUMERS) as transport:
        async with transport.subscribe(ARCHIVE, inbox, prefetch=5):
            await transport.publish(message("a"))
            await inbox.wait(1)
            await transport.publish(message("b"))
            deliveries: list[Delivery] = await inbox.wait(2)
            if is_settled:
                for delivery in deliveries:
                    delivery.ack()  # and is not waited for

        async def is_let_go() -> bool:
            return await _claimed(transport) == [(0 if is_settled else 2, 0), (2, 0)]

        await eventually(is_let_go)
