import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import aiormq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pamqp import frame as their_frame

from broker import Message, NotPublishedError
from broker.amqp.connection import Connection
from broker.amqp.publishing import Begun, ChannelLostError, ConfirmChannel, Route, UnroutableError
from broker.amqp.wire import BODY, FRAME_HEAD, FRAME_OVERHEAD, HEADER, METHOD, Piece, Taker
from broker.topology import topology

_FAR_S = 60.0
_COMMON = Route("x", "k", topology((), retry_delays_s=()))


class _Wire:
    def __init__(self) -> None:
        self.is_blocked = False
        self.is_lost = False
        self.written: list[bytes] = []
        self.taker: Taker | None = None

    def attach(self, _channel: int, taker: Taker) -> None:
        self.taker = taker

    def detach(self, _channel: int, _taker: Taker) -> None:
        self.taker = None

    def write(self, frames: bytes) -> None:
        self.written.append(frames)

    def write_pieces(self, pieces: Sequence[Piece]) -> None:
        self.written.append(b"".join(pieces))


def _end(ended: "asyncio.Future[None]", error: Exception | None) -> None:
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


class _Broker:
    """The other end of a channel: what was written to it, and what it says."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.wire = _Wire()
        self.max_frame_bytes = 4096
        self.number = 3
        self.closing: asyncio.Future[None] = self.loop.create_future()
        self.channel = ConfirmChannel(cast("Connection", self), cast("Any", self), (_COMMON,))

    def publish(
        self,
        name: str = "e",
        *,
        exchange: str = "x",
        within_s: float = _FAR_S,
        on_end: Callable[[Exception | None], None] | None = None,
        is_plain: bool = False,
    ) -> "asyncio.Future[None]":
        ended: asyncio.Future[None] = self.loop.create_future()
        message = Message(body=name.encode(), event_id=name, routing_key="k", received_at_us=1)
        if is_plain:
            message = structs.replace(message, event_id="e" * 32, trace="t" * 55)
        self.begin(message, on_end or partial(_end, ended), exchange=exchange, within_s=within_s)
        return ended

    def begin(
        self,
        message: Message,
        on_end: Callable[[Exception | None], None],
        *,
        exchange: str = "x",
        within_s: float = _FAR_S,
    ) -> None:
        route = _COMMON if exchange == _COMMON.exchange else Route(exchange, "k", _COMMON.fallback)
        deadline_s = self.loop.time() + within_s
        self.channel.publish(Begun(message, route, deadline_s, on_end, lambda _, error: on_end(error)))

    def say(self, frame: Any) -> bool:
        assert self.wire.taker is not None
        return self.wire.taker(METHOD, their_frame.marshal(frame, 3)[7:-1])

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        assert self.say(aiormq.spec.Basic.Ack(delivery_tag=tag, multiple=multiple))

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        assert self.say(aiormq.spec.Basic.Nack(delivery_tag=tag, multiple=multiple))

    def contents(self) -> list[list[tuple[int, bytes]]]:
        """Return kind and payload of each frame of each content that was written."""
        contents: list[list[tuple[int, bytes]]] = []
        data = b"".join(self.wire.written)
        while data:
            kind, _, size = FRAME_HEAD.unpack_from(data)
            if kind == METHOD:
                contents.append([])
            else:
                contents[-1].append((kind, data[7 : 7 + size]))
            data = data[FRAME_OVERHEAD + size :]
        return contents

    def give_back(self, number: int) -> None:
        """Return the publish `number` (from 0) as unroutable, as it was written."""
        assert self.say(aiormq.spec.Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="x", routing_key="k"))
        assert self.wire.taker is not None
        for kind, payload in self.contents()[number]:
            assert kind in (HEADER, BODY)
            assert self.wire.taker(kind, payload)


@pytest.fixture
async def broker() -> _Broker:
    return _Broker()


async def _turn() -> None:
    await asyncio.sleep(0)


def _failures(futures: "list[asyncio.Future[None]]") -> list[type | None]:
    return [type(error) if (error := future.exception()) else None for future in futures]


async def test_all_of_one_turn_leave_in_one_write(broker: _Broker) -> None:
    for number in range(100):
        broker.publish(f"{number}")
    assert broker.wire.written == []
    await _turn()
    assert len(broker.wire.written) == 1
    broker.publish()
    await _turn()
    assert len(broker.wire.written) == 2


async def test_a_large_body_leaves_after_what_was_published_before_it_and_before_what_comes_after(
    broker: _Broker,
) -> None:
    for name in ("a", "b" * 100_000, "c", "d" * 100_000, "e"):
        broker.publish(name)
    await _turn()
    bodies = [b"".join(part for kind, part in content if kind == BODY) for content in broker.contents()]
    assert [bytes({*body}) for body in bodies] == [b"a", b"b", b"c", b"d", b"e"]
    assert [len(body) for body in bodies] == [1, 100_000, 1, 100_000, 1]


async def test_nothing_is_published_before_its_confirm(broker: _Broker) -> None:
    futures = [broker.publish(f"{number}") for number in range(4)]
    await _turn()
    assert not any(future.done() for future in futures)
    broker.ack(2)
    assert [future.done() for future in futures] == [False, True, False, False]
    broker.ack(3, multiple=True)
    assert [future.done() for future in futures] == [True, True, True, False]
    broker.ack(0, multiple=True)
    assert _failures(futures) == [None] * 4


async def test_a_refusal_fails_what_it_names_and_nothing_else(broker: _Broker) -> None:
    futures = [broker.publish(f"{number}") for number in range(5)]
    await _turn()
    broker.ack(1)
    broker.nack(3, multiple=True)
    broker.ack(5, multiple=True)
    assert _failures(futures) == [None, NotPublishedError, NotPublishedError, None, None]


async def test_what_is_returned_is_unroutable_and_its_neighbours_are_not(broker: _Broker) -> None:
    futures = [broker.publish("the same id") for _ in range(3)]
    await _turn()
    broker.give_back(1)
    assert [future.done() for future in futures] == [False, True, False]
    broker.ack(3, multiple=True)
    assert _failures(futures) == [None, UnroutableError, None]


async def test_a_deadline_fails_what_it_concerns_and_the_others_are_still_confirmed(broker: _Broker) -> None:
    late = broker.publish("late", within_s=0.02)
    other = broker.publish("other")
    await asyncio.wait({late}, timeout=5)
    assert _failures([late]) == [NotPublishedError]
    assert not other.done()
    assert not broker.channel.is_open
    assert await broker.channel.wait_retired() == "a confirm timed out"
    broker.ack(2, multiple=True)
    assert _failures([other]) == [None]
    await asyncio.wait_for(broker.channel.wait_settled(), 5)


async def test_an_earlier_deadline_that_comes_later_holds(broker: _Broker) -> None:
    patient = broker.publish("patient")
    impatient = broker.publish("impatient", within_s=0.02)
    await asyncio.wait({impatient}, timeout=5)
    assert _failures([impatient]) == [NotPublishedError]
    assert not patient.done()
    broker.channel.let_go()
    assert _failures([patient]) == [ChannelLostError]


async def test_while_the_broker_is_blocked_a_deadline_does_not_cost_the_channel(broker: _Broker) -> None:
    broker.wire.is_blocked = True
    late = broker.publish("late", within_s=0.02)
    await asyncio.wait({late}, timeout=5)
    assert _failures([late]) == [NotPublishedError]
    assert broker.channel.is_open
    broker.ack(1)
    assert broker.channel.is_open


async def test_a_lost_channel_fails_what_is_not_confirmed_and_never_what_is(broker: _Broker) -> None:
    futures = [broker.publish(f"{number}") for number in range(3)]
    await _turn()
    broker.ack(1)
    broker.closing.set_exception(aiormq.ConnectionClosed(320, "CONNECTION_FORCED"))
    await _turn()
    assert _failures(futures) == [None, ChannelLostError, ChannelLostError]
    assert not broker.channel.is_open


async def test_a_missing_exchange_concerns_those_that_named_it(broker: _Broker) -> None:
    futures = [broker.publish(exchange=exchange) for exchange in ("tiw.gone", "tiw.events", "tiw.gone")]
    broker.closing.set_exception(aiormq.ChannelNotFoundEntity("NOT_FOUND - no exchange 'tiw.gone' in vhost '/'"))
    await _turn()
    assert _failures(futures) == [UnroutableError, ChannelLostError, UnroutableError]


async def test_a_message_that_is_too_large_fails_alone(broker: _Broker) -> None:
    futures = [broker.publish("x" * size) for size in (10, 5000, 20)]
    text = "PRECONDITION_FAILED - message size 5000 is larger than configured max size 4096"
    broker.closing.set_exception(aiormq.ChannelPreconditionFailed(text))
    await _turn()
    assert _failures(futures) == [ChannelLostError, NotPublishedError, ChannelLostError]


async def test_a_call_back_that_raises_disturbs_no_other(broker: _Broker) -> None:
    def raises(error: Exception | None) -> None:
        raise RuntimeError(error)

    one, other = broker.publish("one"), broker.publish("other")
    broker.publish("another", on_end=raises)
    last = broker.publish("last")
    await _turn()
    broker.ack(4, multiple=True)
    assert _failures([one, other, last]) == [None] * 3
    await asyncio.wait_for(broker.channel.wait_settled(), 5)


async def test_each_call_back_is_called_once_whatever_the_broker_says_afterwards(broker: _Broker) -> None:
    calls: list[type | None] = []
    broker.publish(on_end=lambda error: calls.append(type(error)))
    assert calls == []
    await _turn()
    broker.ack(1)
    broker.nack(1)
    broker.give_back(0)
    broker.closing.set_exception(aiormq.ConnectionClosed(320, "CONNECTION_FORCED"))
    await _turn()
    broker.channel.let_go()
    assert calls == [type(None)]


def _unexpected(error: Exception | None) -> None:
    raise AssertionError(error)


async def test_a_message_that_cannot_be_written_shifts_no_confirm(broker: _Broker) -> None:
    first = broker.publish("first")
    message = Message(body=b"", event_id="e", routing_key="k", received_at_us=2**63)
    with pytest.raises(OverflowError):
        broker.begin(message, _unexpected)
    second = broker.publish("second")
    await _turn()
    broker.ack(2)
    assert [first.done(), second.done()] == [False, True]


async def test_a_confirm_for_nothing_is_nothing(broker: _Broker) -> None:
    broker.ack(7)
    broker.ack(7, multiple=True)
    future = broker.publish()
    broker.ack(1)
    broker.ack(1)
    assert _failures([future]) == [None]


async def test_what_is_not_about_publishing_is_left_to_the_library(broker: _Broker) -> None:
    assert not broker.say(aiormq.spec.Channel.Close(reply_code=406, reply_text="", class_id=0, method_id=0))
    assert not broker.say(aiormq.spec.Confirm.SelectOk())


class _Story:
    """A broker that says something at each step, and what every publish should have come to by then."""

    def __init__(self) -> None:
        self.broker = _Broker()
        self.futures: list[asyncio.Future[None]] = []
        self.expected: list[type | str | None] = []

    async def publish(self, kind: int) -> None:
        self.futures.append(self.broker.publish("the same id", is_plain=kind % 2 == 0))
        self.expected.append("waiting")
        await _turn()

    async def give_back(self, tag: int) -> None:
        if 1 <= tag <= len(self.futures):
            self.broker.give_back(tag - 1)
            self._settle(range(tag, tag + 1), UnroutableError)

    async def ack(self, tag: int) -> None:
        self.broker.ack(tag)
        self._settle(range(tag, tag + 1), None)

    async def nack(self, tag: int) -> None:
        self.broker.nack(tag)
        self._settle(range(tag, tag + 1), NotPublishedError)

    async def ack_up_to(self, tag: int) -> None:
        self.broker.ack(tag, multiple=True)
        self._settle(range(1, (tag or len(self.expected)) + 1), None)

    async def nack_up_to(self, tag: int) -> None:
        self.broker.nack(tag, multiple=True)
        self._settle(range(1, (tag or len(self.expected)) + 1), NotPublishedError)

    def _settle(self, tags: range, outcome: type | None) -> None:
        for tag in tags:
            if 1 <= tag <= len(self.expected) and self.expected[tag - 1] == "waiting":
                self.expected[tag - 1] = outcome


_STEPS = (_Story.publish, _Story.give_back, _Story.ack, _Story.nack, _Story.ack_up_to, _Story.nack_up_to)


@given(
    steps=st.lists(st.tuples(st.sampled_from((_Story.publish, *_STEPS)), st.integers(0, 12)), max_size=40),
    lost=st.booleans(),
)
def test_each_publish_ends_as_the_broker_said_first(
    steps: list[tuple[Callable[[_Story, int], Awaitable[None]], int]], *, lost: bool
) -> None:
    async def run() -> None:
        story = _Story()
        for step, tag in steps:
            await step(story, tag)
        if lost:
            story.broker.closing.cancel()
        story.broker.channel.let_go()
        await _turn()
        ends = [ChannelLostError if end == "waiting" else end for end in story.expected]
        assert _failures(story.futures) == ends

    asyncio.run(run())
