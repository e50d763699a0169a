"""Collects what a subscription hands over, and waits for conditions with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

from broker import Delivery, Message

TIMEOUT_S = 20.0


class Inbox:
    """Call it with deliveries; it keeps them in their order."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._arrived = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        """Keep a delivery."""
        self.deliveries.append(delivery)
        self._arrived.set()

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def messages(self) -> list[Message]:
        """What was delivered, in its order."""
        return [delivery.message for delivery in self.deliveries]

    @property
    def event_ids(self) -> list[str]:
        """Their event_ids, in the same order."""
        return [message.event_id for message in self.messages]

    async def wait(self, count: int, *, timeout_s: float = TIMEOUT_S) -> list[Delivery]:
        """Return all deliveries once there are at least `count`."""
        async with asyncio.timeout(timeout_s):
            while len(self.deliveries) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.deliveries


class AckingInbox(Inbox):
    """Acknowledges all it gets."""

    def __init__(self) -> None:
        super().__init__()
        self._acks: set[asyncio.Task[bool]] = set()

    def __call__(self, delivery: Delivery) -> None:
        """Keep a delivery and settle it."""
        super().__call__(delivery)
        ack = asyncio.ensure_future(delivery.ack())
        self._acks.add(ack)
        ack.add_done_callback(self._acks.discard)


async def eventually(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = TIMEOUT_S) -> None:
    """Return once `condition` holds. Raises `TimeoutError` if it never does."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.05)
