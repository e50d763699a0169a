"""A transport whose every confirm is in the hands of the test."""

import asyncio

from broker import Message, OnPublished
from tests.ingest.begun import begin_in_task


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

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does."""
        return begin_in_task(self.publish(message), on_done)
