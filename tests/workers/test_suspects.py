"""Suspects in a row: each is run with nothing beside it, and none waits for ever."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, Self, cast

from msgspec import structs

from broker import Message, OnDelivery, Transport
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
        self._prefetch = 0

    def subscribe(self, _: object, on_delivery: OnDelivery, *, prefetch: int) -> Self:
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        return self

    async def set_prefetch(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self.deliver()

    async def send(self, _: str, message: Message) -> None:
        self.waiting.append(message)

    def deliver(self) -> None:
        while self.waiting and self.unsettled < self._prefetch:
            self.unsettled += 1
            self._on_delivery(_Delivery(self, self.waiting.popleft()))

    async def __aenter__(self) -> Self:
        self.deliver()
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


class _Delivery:
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


async def test_suspects_that_come_one_after_the_other_are_all_run(house: House) -> None:
    handled: list[str] = []

    @consumer(remember=False)
    async def archive(event: OnlineRecordStarted, ctx: Context) -> None:
        handled.append(event.task_id)

    tasks = [f"suspect-{number}" for number in range(4)]
    transport = Eager([structs.replace(started(task), crashes=3) for task in tasks])
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
        await eventually(lambda: sorted(handled) == tasks)
        await eventually(lambda: transport.unsettled == 0)
