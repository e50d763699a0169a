import asyncio
from typing import Any, cast

import aiormq
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame as their_frame

from broker import Delivery
from broker.amqp.connection import Connection
from broker.amqp.consuming import MOST, ChannelDeliveries, OwnConnectionLosses
from broker.amqp.wire import HEADER, METHOD, QuickTaker, Taker


class _Wire:
    def __init__(self) -> None:
        self.is_lost = False
        self.written: list[bytes] = []
        self.taker: Taker | None = None

    def attach(self, _channel: int, taker: Taker, quick: QuickTaker) -> None:
        self.taker = taker
        self.quick = quick

    def write(self, frames: bytes) -> None:
        self.written.append(frames)


class _Broker:
    """The other end of a consumer's channel."""

    def __init__(self) -> None:
        self.wire = _Wire()
        self.is_closed = False
        self.number = 1
        self.on_consumer_cancel_callbacks: set[object] = set()
        self.handed_over: list[Delivery] = []
        self.deliveries = ChannelDeliveries(
            cast("Connection", self), cast("Any", self), "q", self.handed_over.append, OwnConnectionLosses()
        )

    async def basic_qos(self, **_: object) -> None: ...

    async def basic_consume(self, *_: object, **__: object) -> Any:
        return aiormq.spec.Basic.ConsumeOk(consumer_tag="c")

    def deliver(self, tag: int) -> None:
        assert self.wire.taker is not None
        deliver = aiormq.spec.Basic.Deliver(consumer_tag="c", delivery_tag=tag, exchange="x", routing_key="k")
        assert self.wire.taker(METHOD, their_frame.marshal(deliver, 1)[7:-1])
        assert self.wire.taker(HEADER, b"\0\x3c\0\0" + bytes(8) + b"\0\0")

    def acknowledged(self) -> list[set[int]]:
        """Say which deliveries each write settled, as the broker understands it."""
        unsettled = set(range(1, 1000))
        settled = []
        for written in self.wire.written:
            before = set(unsettled)
            at = 0
            while at < len(written):
                size, _, ack = their_frame.unmarshal(written[at:])
                assert isinstance(ack, aiormq.spec.Basic.Ack)
                tag = ack.delivery_tag or 0
                assert tag in unsettled, "acknowledged twice: the broker would close the channel"
                unsettled -= set(range(1, tag + 1)) if ack.multiple else {tag}
                at += size
            settled.append(before - unsettled)
        return settled


async def _turn() -> None:
    await asyncio.sleep(0)


async def test_acknowledgements_of_one_turn_leave_in_one_frame() -> None:
    broker = _Broker()
    await broker.deliveries.resume(100)
    for tag in range(1, 51):
        broker.deliver(tag)
    for delivery in broker.handed_over:
        assert await delivery.ack()
    assert broker.wire.written == []
    await _turn()
    assert broker.acknowledged() == [set(range(1, 51))]
    assert len(broker.wire.written[0]) == 21


async def test_what_was_acknowledged_is_written_before_the_channel_ends() -> None:
    broker = _Broker()
    await broker.deliveries.resume(2)
    broker.deliver(1)
    broker.deliver(2)
    assert await broker.handed_over[0].ack()
    broker.deliveries.give_up("closed")
    assert broker.acknowledged() == [{1}]
    assert not await broker.handed_over[1].ack()
    await _turn()
    assert broker.acknowledged() == [{1}]


async def test_a_second_acknowledgement_says_what_the_first_did() -> None:
    broker = _Broker()
    await broker.deliveries.resume(1)
    broker.deliver(1)
    assert await broker.handed_over[0].ack()
    await _turn()
    broker.deliveries.give_up("closed")
    assert await broker.handed_over[0].ack()
    assert broker.acknowledged() == [{1}]


async def test_a_lost_connection_settles_nothing() -> None:
    broker = _Broker()
    await broker.deliveries.resume(1)
    broker.deliver(1)
    broker.wire.is_lost = True
    assert not await broker.handed_over[0].ack()
    await _turn()
    assert broker.wire.written == []


@given(
    turns=st.lists(st.lists(st.integers(1, 30), max_size=12), max_size=12),
    prefetch=st.integers(1, 20),
)
def test_exactly_what_is_acknowledged_is_settled_in_whatever_order(turns: list[list[int]], prefetch: int) -> None:
    async def run() -> None:
        broker = _Broker()
        await broker.deliveries.resume(prefetch)
        delivered = 0
        acked: set[int] = set()
        for turn in turns:
            while delivered < 30 and delivered - len(acked) < prefetch + 2:
                delivered += 1
                broker.deliver(delivered)
            new = {number for number in turn if number <= len(broker.handed_over)} - acked
            for number in sorted(new, key=turn.index):
                assert await broker.handed_over[number - 1].ack()
            acked |= new
            await _turn()
            assert set().union(*broker.acknowledged()) == acked
            assert len(broker.handed_over) - len(acked) <= prefetch

    asyncio.run(run())


def test_a_loss_that_this_process_survived_is_counted_until_the_event_is_settled() -> None:
    own_losses = OwnConnectionLosses()
    own_losses.lost(["a", "b"])
    own_losses.lost(["a"])
    assert [own_losses.count(event_id) for event_id in "abc"] == [2, 1, 0]
    own_losses.settled("a")
    assert [own_losses.count(event_id) for event_id in "abc"] == [0, 1, 0]


def test_no_more_own_losses_are_remembered_than_have_room() -> None:
    own_losses = OwnConnectionLosses()
    own_losses.lost(["first"])
    own_losses.lost(f"{number}" for number in range(MOST))
    assert (own_losses.count("first"), own_losses.count("0"), own_losses.count(f"{MOST - 1}")) == (0, 1, 1)
