"""Planted bugs of ingest: parts that say that something is done before it is."""

import asyncio
import contextlib

from broker import Message, NotPublishedError
from chaos.simulation.transport import HASTE_S, SimulatedTransport
from ingest.spool import Spool


class Hasty:
    """A publisher that does not wait for confirms."""

    def __init__(self, transport: SimulatedTransport) -> None:
        self._transport = transport
        self._running: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there."""
        return self._transport.is_ready

    async def publish(self, message: Message) -> None:
        """Say that it is done, and do it."""
        task = asyncio.create_task(self._publish(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _publish(self, message: Message) -> None:
        await asyncio.sleep(HASTE_S)
        with contextlib.suppress(NotPublishedError):
            await self._transport.publish(message)


class HastySpool(Spool):
    """A spool that does not wait for the disk."""

    def put(self, message: Message) -> "asyncio.Future[None]":
        """Say that it is done, and do it."""
        super().put(message).add_done_callback(lambda done: done.exception())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done
