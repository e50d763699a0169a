"""The programs that simulated processes run, made of the real parts, and the places where they run."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Protocol

from broker import DEFAULT_RETRY_DELAYS_S, Message, NotPublishedError, OnPublished
from chaos.simulation.broker import Broker
from chaos.simulation.database import Database
from chaos.simulation.evidence import Notes, Story
from chaos.simulation.plan import Bug
from chaos.simulation.processes import Process
from chaos.simulation.transport import HASTE_S, SimulatedTransport
from chaos.simulation.vendor import IngestAddress, Listener
from chaos.simulation.virtual_time import VirtualLoop
from ingest import IngestConfig, KeyRing
from ingest.callbacks import Callbacks
from ingest.config import Budget
from ingest.durability import Durability
from ingest.server import DRAIN_TIMEOUT_S
from ingest.spool import Spool
from tests.ingest.begun import begin_in_task
from workers import CONFIRM_TIMEOUT_S, Consumer, Worker

#: As long as nobody waits.
_TOO_LONG_S = 60.0

NO_DEADLINE = Budget(confirm_s=_TOO_LONG_S, total_s=2 * _TOO_LONG_S)


class UnconfirmedTransport:
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

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Say that it is done, and do it."""
        return begin_in_task(self.publish(message), on_done)

    async def _publish(self, message: Message) -> None:
        await asyncio.sleep(HASTE_S)
        with contextlib.suppress(NotPublishedError):
            await self._transport.publish(message)


class UnsyncedSpool(Spool):
    """A spool that does not wait for the disk."""

    def put(self, message: Message) -> "asyncio.Future[None]":
        """Say that it is done, and do it."""
        super().put(message).add_done_callback(lambda done: done.exception())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class NoStallWatch:
    """In the place of a thread that watches the event loop."""

    def __init__(self, _: object) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class Program(Protocol):
    """What a process runs until it is told to stop."""

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Run in `process` until `stopping` is set; then end in good order."""


class Ingest:
    """An ingest node behind the one address: everything but its sockets is real. Its spool is in `folder`."""

    def __init__(
        self,
        ingest_address: IngestAddress,
        broker: Broker,
        folder: Path,
        keys: Path,
        *,
        make_spool: Callable[..., Spool] = Spool,
    ) -> None:
        self._keys = keys
        self._ingest_address = ingest_address
        self._broker = broker
        self._folder = folder
        self._make_spool = make_spool

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Take callbacks until `stopping` is set, and answer those that are here."""
        bugs = self._broker.bugs
        async with AsyncExitStack() as stack:
            keys = await stack.enter_async_context(KeyRing.of_file(self._keys))
            transport = SimulatedTransport(self._broker, process, DEFAULT_RETRY_DELAYS_S)
            await stack.enter_async_context(transport)
            drain_to = UnconfirmedTransport(transport) if Bug.DELETED_BEFORE_CONFIRM in bugs else transport
            spool = await stack.enter_async_context(self._make_spool(self._folder, drain_to))
            config = IngestConfig(budget=NO_DEADLINE if Bug.NO_DEADLINE in bugs else Budget())
            publish_to = UnconfirmedTransport(transport) if Bug.ANSWERED_BEFORE_CONFIRM in bugs else transport
            durability = Durability(publish_to, spool, budget=config.budget, max_unconfirmed=config.max_unconfirmed)
            callbacks = Callbacks(config, durability, keys, rejected=None)
            flushing = asyncio.create_task(_keep_flushing(durability), name="metrics")
            stack.callback(flushing.cancel)
            listener = Listener(process, callbacks)
            self._ingest_address.listeners.append(listener)
            process.on_death.append(lambda: self._leave(listener))
            await stopping.wait()
            self._leave(listener)
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await callbacks.idle.wait()
            callbacks.close()

    def _leave(self, listener: Listener) -> None:
        if listener in self._ingest_address.listeners:
            self._ingest_address.listeners.remove(listener)


async def _keep_flushing(durability: Durability) -> None:
    """Do what a server does at its own, faster pace: most of a world's steps would be this."""
    while True:
        durability.flush()
        await asyncio.sleep(1.0)


class Work:
    """A worker: all of it is real but the transport and the driver of its database."""

    def __init__(
        self,
        consumers: Sequence[Consumer],
        broker: Broker,
        database: Database,
        *,
        make_worker: Callable[..., Worker],
    ) -> None:
        self._consumers = consumers
        self._broker = broker
        self._database = database
        self._make_worker = make_worker

    async def run(self, process: Process, stopping: asyncio.Event) -> None:
        """Run the consumers until `stopping` is set, and drain them."""
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._database.store())
            transport = SimulatedTransport(
                self._broker, process, DEFAULT_RETRY_DELAYS_S, confirm_timeout_s=CONFIRM_TIMEOUT_S
            )
            await stack.enter_async_context(transport)
            worker = self._make_worker(self._consumers, transport=transport, store=store)
            await stack.enter_async_context(worker)
            await stopping.wait()


#: How long a member has to end in good order.
END_S = 60.0


class Member:
    """One program and its incarnations. `process` is the one of now; `gone` are those that died."""

    def __init__(
        self,
        name: str,
        program: Program,
        *,
        loop: VirtualLoop,
        story: Story,
        notes: Notes,
        rng: Random,
        on_death: Callable[[], None],
    ) -> None:
        self.name = name
        self._program = program
        self._loop = loop
        self._story = story
        self._notes = notes
        self._rng = rng
        self._on_death = on_death
        self._incarnation = 0
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._is_over = False
        self.process: Process | None = None
        self.gone: list[Process] = []

    def start(self) -> None:
        """Start the program anew."""
        if self._is_over:
            return
        self._incarnation += 1
        self._stopping = asyncio.Event()
        self.process = Process(f"{self.name}.{self._incarnation}", self._loop, tell=self._story.tell)
        self.process.on_death.append(self._died)
        self._story.tell(self.process.name, "started")
        self._main = self.process.spawn(self._program.run(self.process, self._stopping), name=self.process.name)

    async def end(self) -> None:
        """Let the program end in good order, and look at what it leaves behind."""
        process, main = self.process, self._main
        if process is None or main is None:
            return
        self._stopping.set()
        await asyncio.wait([main], timeout=END_S)
        if not main.done() and process.was_stopped:
            # It stands still, or did so for most of its time: whoever wants it gone kills it.
            process.crash("killed, since it did not end")
        if process.is_dead:
            return
        if not main.done():
            self._notes.failed(process.name, f"did not end within {END_S:g} s")
        elif main.exception() is not None:
            self._notes.failed(process.name, f"ended with {main.exception()!r}")
        left = sorted(task.get_name() for task in process.tasks if not task.done())
        if left:
            self._notes.failed(process.name, f"left tasks behind: {', '.join(left)}")
        self._story.tell(process.name, "ended")
        # It is gone: what its timers would still do is not done.
        process.on_death.clear()
        process.crash("after its end")
        self.gone.append(process)
        self.process = None

    async def restart(self) -> None:
        """End in good order, then start again."""
        await self.end()
        if self.process is None:
            self.start()

    def close(self) -> None:
        """Start nothing again."""
        self._is_over = True

    def _died(self) -> None:
        if self.process is not None:
            self.gone.append(self.process)
            self.process = None
            self._on_death()
        self._loop.after(self._rng.choice((0.1, 2.0, 20.0)) * self._rng.uniform(0.5, 1.0), self._start_again)

    def _start_again(self) -> None:
        if self.process is None:
            self.start()
