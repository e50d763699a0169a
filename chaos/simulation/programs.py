"""The programs that simulated processes run: ingest nodes and workers, made of the real parts."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from broker import DEFAULT_RETRY_DELAYS_S
from chaos.simulation.broker import Broker
from chaos.simulation.bugs import Bug
from chaos.simulation.database import Database
from chaos.simulation.door import Door, Listener
from chaos.simulation.hasty import Hasty, HastySpool
from chaos.simulation.processes import Process
from chaos.simulation.transport import SimulatedTransport
from ingest import IngestConfig, KeyRing
from ingest.callbacks import Callbacks
from ingest.durability import Keeper
from ingest.server import DRAIN_TIMEOUT_S
from ingest.spool import Spool
from workers import Consumer, Worker


class Program(Protocol):
    """What a process runs until it is told to stop."""

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Run in `process` until `stopping` is set; then end in good order."""


class Ingest:
    """An ingest node behind the door: everything but its sockets is real. Its spool is in `folder`."""

    def __init__(self, door: Door, broker: Broker, folder: Path, keys: Path) -> None:
        self._keys = keys
        self._door = door
        self._broker = broker
        self._folder = folder

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Take callbacks until `stopping` is set, and answer those that are here."""
        bugs = self._broker.bugs
        async with AsyncExitStack() as stack:
            keys = await stack.enter_async_context(KeyRing.of_file(self._keys))
            transport = SimulatedTransport(self._broker, process, DEFAULT_RETRY_DELAYS_S)
            await stack.enter_async_context(transport)
            drain_to = Hasty(transport) if Bug.DELETED_BEFORE_CONFIRM in bugs else transport
            spool = (HastySpool if Bug.ANSWERED_BEFORE_SPOOLED in bugs else Spool)(self._folder, drain_to)
            await stack.enter_async_context(spool)
            config = IngestConfig()
            publish_to = Hasty(transport) if Bug.ANSWERED_BEFORE_CONFIRM in bugs else transport
            keeper = Keeper(publish_to, spool, max_unconfirmed=config.max_unconfirmed)
            callbacks = Callbacks(config, keeper, keys, rejected=None)
            listener = Listener(process, callbacks)
            self._door.listeners.append(listener)
            process.on_death.append(lambda: self._leave(listener))
            await stopping.wait()
            self._leave(listener)
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await callbacks.idle.wait()
            callbacks.close()

    def _leave(self, listener: Listener) -> None:
        if listener in self._door.listeners:
            self._door.listeners.remove(listener)


class Work:
    """A worker: all of it is real but the transport and the driver of its database."""

    def __init__(self, consumers: Sequence[Consumer], broker: Broker, database: Database, *, lease_s: float) -> None:
        self._consumers = consumers
        self._broker = broker
        self._database = database
        self._lease_s = lease_s

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Run the consumers until `stopping` is set, and drain them."""
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._database.store())
            transport = SimulatedTransport(self._broker, process, DEFAULT_RETRY_DELAYS_S)
            await stack.enter_async_context(transport)
            worker = Worker(self._consumers, transport=transport, store=store, lease_s=self._lease_s)
            await stack.enter_async_context(worker)
            await stopping.wait()
