"""A transport that remembers what was published, and fails or waits when it is told to."""

import asyncio

from broker import BrokerError, Message, OnPublished
from tests.ingest.begun import begin_in_task


class RecordingTransport:
    """`published` is what a consumer would get. `gate` holds publishes back while it is cleared."""

    def __init__(self) -> None:
        self.is_ready = True
        self.published: list[Message] = []
        self.waiting = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BrokerError | None = None

    async def publish(self, message: Message) -> None:
        """Wait for the gate; then fail or remember."""
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        self.published.append(message)

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does."""
        return begin_in_task(self.publish(message), on_done)
