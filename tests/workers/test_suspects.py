"""Suspects in a row: each is run with nothing beside it, and none waits for ever."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Self, cast

from msgspec import structs

from broker import Message, NotPublishedError, OnDelivery, Transport
from schemas import OnlineRecordStarted
from tests.workers.house import LADDER, House, eventually, started
from workers import Context, consumer
from workers.memory import MemoryOff
from workers.runner import Runner
from workers.store_watch import StoreWatch


class Eager:
    """A transport with one queue, and its subscription; what there is room for is delivered at once."""

    def __init__(self, messages: list[Message]) -> None:
        self.waiting = deque(messages)
        self.unsettled = 0
        self.is_consuming = True
        self.unconfirmed_sends = 0
        self._prefetch = 0

    def subscribe(self, _: object, on_delivery: OnDelivery, *, prefetch: int) -> Self:
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        return self

    async def set_prefetch(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self.deliver()

    async def send(self, _: str, message: Message) -> None:
        if self.unconfirmed_sends:
            self.unconfirmed_sends -= 1
            raise NotPublishedError("not confirmed")
        self.waiting.append(message)

    async def wait_ready(self) -> None: ...

    def deliver(self) -> None:
        while self.waiting and self.unsettled < self._prefetch:
            self.unsettled += 1
            self._on_delivery(_Delivery(self, self.waiting.popleft()))

    async def __aenter__(self) -> Self:
        self.deliver()
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


class _Delivery:
    taken_out = ""

    def __init__(self, transport: Eager, message: Message) -> None:
        self._transport = transport
        self.message = message
        self.crashes = message.crashes

    def ack(self) -> Awaitable[bool]:
        self._transport.unsettled -= 1
        # Before the acknowledgement is known to be made.
        self._transport.deliver()
        acked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        acked.set_result(True)
        return acked


@asynccontextmanager
async def running(house: House, transport: Eager) -> AsyncIterator[list[str]]:
    """Run a consumer of what `transport` delivers; give the list of the tasks that it has handled."""
    handled: list[str] = []

    @consumer(remember=False)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        if event.task_id == "harmless":
            await eventually(lambda: not transport.waiting)
        handled.append(event.task_id)

    async with (
        StoreWatch(house.store) as store_watch,
        Runner(
            archive,
            transport=cast("Transport", cast("Any", transport)),
            store=house.store,
            store_watch=store_watch,
            retry_delays_s=LADDER,
            memory=MemoryOff(),
        ),
    ):
        yield handled


async def test_suspects_that_come_one_after_the_other_are_all_run(house: House) -> None:
    tasks = [f"suspect-{number}" for number in range(4)]
    transport = Eager([structs.replace(started(task), crashes=3) for task in tasks])
    async with running(house, transport) as handled:
        await eventually(lambda: sorted(handled) == tasks)
        await eventually(lambda: transport.unsettled == 0)


async def test_a_suspect_whose_requeueing_the_broker_does_not_confirm_is_requeued_again(house: House) -> None:
    tasks = [f"suspect-{number}" for number in range(3)]
    transport = Eager([started("harmless"), *(structs.replace(started(task), crashes=3) for task in tasks)])
    transport.unconfirmed_sends = 2
    async with running(house, transport) as handled:
        # What is neither acknowledged nor worked at would be in the way of all else, as long as the connection lives.
        await eventually(lambda: sorted(handled) == ["harmless", *tasks])
        await eventually(lambda: transport.unsettled == 0)
    assert transport.unconfirmed_sends == 0
