"""A transport whose every confirm is in the hands of the test."""

import asyncio

from broker import Message


class ControlledTransport:
    """`confirms` has a future per publish that waits, by TaskId."""

    is_ready = True

    def __init__(self) -> None:
        self.confirms: dict[str, asyncio.Future[None]] = {}

    async def publish(self, message: Message) -> None:
        """Return when the test says so."""
        task_id = message.body.partition(b'"TaskId": "')[2].partition(b'"')[0].decode()
        confirm = self.confirms[task_id] = asyncio.get_running_loop().create_future()
        await confirm
