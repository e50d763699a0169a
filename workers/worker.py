"""One process's consumers over one transport and one store."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

import structlog

from broker import DEFAULT_RETRY_DELAYS_S, Transport
from store import (
    Store,
    StoreError,
    StoreUnavailableError,
    register_consumers,
    renew,
    wait_for_schema,
)
from workers.consumer import Consumer
from workers.dead_letters import DeadLetterMover
from workers.owner import new_owner, release_leases_of_the_gone
from workers.pruning import keep_pruning
from workers.runner import Runner
from workers.stall_watch import StallWatch
from workers.store_watch import StoreWatch

#: A lease outlives a missed renewal or two; after a crash the event waits this long at most, plus a rung.
LEASE_S = 30.0

#: What unfinished handlers get on shutdown before they are handed back.
DRAIN_GRACE_S = 25.0

_log = structlog.get_logger()


class Worker:
    """Runs `consumers` until it is left, as an async context manager.

    Entering returns at once: the consumers start when the store has its schema, and say that they wait for it.
    Leaving drains them: nothing new is taken, what runs may finish within `drain_grace_s`, the rest is handed back.
    Meanwhile the store forgets what is older than `retention_days` (0: keeps it); see `workers.pruning`.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        *,
        transport: Transport,
        store: Store,
        retry_delays_s: Sequence[float] = DEFAULT_RETRY_DELAYS_S,
        lease_s: float = LEASE_S,
        drain_grace_s: float = DRAIN_GRACE_S,
        retention_days: int = 0,
    ) -> None:
        self._consumers = consumers
        self._transport = transport
        self._store = store
        self._retry_delays_s = tuple(retry_delays_s)
        self._lease_s = lease_s
        self._drain_grace_s = drain_grace_s
        self._retention_days = retention_days
        self._owner = new_owner()
        self._runners: list[Runner] = []
        self._main: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the broker has every consumer of this worker right now."""
        return len(self._runners) == len(self._consumers) and all(runner.is_consuming for runner in self._runners)

    async def wait(self) -> None:
        """Return when the worker ends by itself, which it does only by raising what broke it."""
        if self._main is not None:
            await asyncio.shield(self._main)

    async def __aenter__(self) -> Self:
        self._main = asyncio.create_task(self._run(), name="worker")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping.set()
        if self._main is not None:
            if not self._runners:
                self._main.cancel()
            await asyncio.wait({self._main})

    async def _run(self) -> None:
        await self._register()
        async with AsyncExitStack() as stack:
            code = {consumer.function.__code__: consumer.name for consumer in self._consumers}
            await stack.enter_async_context(StallWatch(code))
            store_watch = await stack.enter_async_context(StoreWatch(self._store))
            pruning = keep_pruning(self._store, store_watch, retention_days=self._retention_days)
            for chore in (self._renew_leases(store_watch), pruning):
                stack.push_async_callback(_end, asyncio.create_task(chore))
            for consumer in self._consumers:
                mover = DeadLetterMover(
                    consumer.queues, transport=self._transport, store=self._store, store_watch=store_watch
                )
                await stack.enter_async_context(mover)
                runner = Runner(
                    consumer,
                    transport=self._transport,
                    store=self._store,
                    store_watch=store_watch,
                    retry_delays_s=self._retry_delays_s,
                    owner=self._owner,
                    lease_s=self._lease_s,
                )
                self._runners.append(await stack.enter_async_context(runner))
            _log.info("worker_started", consumers=[consumer.name for consumer in self._consumers])
            await self._stopping.wait()
            await asyncio.gather(*(runner.drain(grace_s=self._drain_grace_s) for runner in self._runners))
            _log.info("worker_drained")

    async def _register(self) -> None:
        """Tell the store which consumers there are, so that they can be listed where they do not run."""
        routing_keys = {consumer.name: consumer.routing_keys for consumer in self._consumers}
        while True:
            await wait_for_schema(self._store)
            try:
                await register_consumers(self._store, routing_keys)
                await release_leases_of_the_gone(self._store)
            except StoreUnavailableError:
                continue
            return

    async def _renew_leases(self, store_watch: StoreWatch) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                began_s = time.monotonic()
                # First: what follows takes as long as it takes.
                await renew(self._store, owner=self._owner, lease_s=self._lease_s)
                for runner in self._runners:
                    runner.note_renewal(began_s=began_s)
                for runner in self._runners:
                    await runner.release_owed()
            except StoreError:
                store_watch.report_away()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
