"""A consumer's hold on its queue, kept through every loss."""

import asyncio
from typing import Self

import structlog

from broker.amqp_connection import (
    CONNECTION_ERRORS,
    Connection,
    cancellation_as_loss,
    close_channel,
    describe,
    raise_if_cancelled,
)
from broker.amqp_intake import REQUEST_TIMEOUT_S, Intake
from broker.amqp_link import Backoff, Link
from broker.amqp_survivals import Survivals
from broker.amqp_topology import Declarer
from broker.amqp_watchdog import Finding, Watchdog
from broker.errors import TopologyConflictError
from broker.protocol import OnDelivery
from broker.topology import Topology
from telemetry import metrics

_log = structlog.get_logger()


class AmqpSubscription:
    """Consumes one queue on a channel of its own. Implements `broker.Subscription`."""

    def __init__(
        self,
        link: Link,
        declarer: Declarer,
        topology: Topology,
        queue: str,
        on_delivery: OnDelivery,
        *,
        prefetch: int,
        watchdog: Watchdog,
    ) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._watchdog = watchdog
        self._survivals = Survivals()
        self._intake: Intake | None = None
        self._is_renewing = False
        self._turn = asyncio.Lock()
        self._problem = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name=f"amqp consumer {self._queue}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def is_consuming(self) -> bool:
        """Whether the broker has this consumer right now (a prefetch of 0 counts as consuming)."""
        # A renewal changes the channel in a moment; nobody need stop because of that.
        is_renewing = self._is_renewing and self._link.is_connected
        return is_renewing or (self._intake is not None and self._intake.is_open)

    async def set_prefetch(self, prefetch: int) -> None:
        """Bound how many deliveries may be unsettled at once, from now on; 0 stops the intake."""
        self._prefetch = prefetch
        intake = self._intake
        if intake is not None:
            await self._apply_prefetch(intake)

    async def _apply_prefetch(self, intake: "Intake") -> None:
        try:
            with cancellation_as_loss():
                async with self._turn:
                    await intake.set_prefetch(self._prefetch)
        except CONNECTION_ERRORS as error:
            # It holds when the consumer is back.
            intake.give_up(describe(error))

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            try:
                with cancellation_as_loss():
                    await self._consume(connection, backoff)
                if self._is_renewing:
                    continue
            except TopologyConflictError as conflict:
                if self._problem != str(conflict):
                    _log.error("topology_conflict", error=str(conflict))
                self._problem = str(conflict)
            except CONNECTION_ERRORS as error:
                _log.warning("consumer_lost", queue=self._queue, error=describe(error))
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would consume again
                _log.exception("consumer_lost", queue=self._queue)
            self._is_renewing = False
            await backoff.wait()

    async def _consume(self, connection: Connection, backoff: Backoff) -> None:
        """Consume until the channel is lost; a queue that is deleted meanwhile is made anew."""
        if not self._is_renewing:
            await self._declarer.declare(connection, self._topology)
        channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
        intake = Intake(connection, channel, self._queue, self._on_delivery, self._survivals)
        # Now, because deliveries come before the next line returns, and they may lead to another prefetch.
        self._intake = intake
        watching: asyncio.Task[None] | None = None
        try:
            async with self._turn:
                await intake.resume(self._prefetch)
            self._problem = ""
            if not self._is_renewing:
                _log.info("consumer_started", queue=self._queue)
            self._is_renewing = False
            watching = asyncio.create_task(self._watch(connection, intake), name=f"amqp watchdog {self._queue}")
            with backoff.working():
                raise_if_cancelled()
                while await intake.wait_cancelled():
                    _log.warning("consumer_lost", queue=self._queue, error="cancelled by the broker")
                    await self._declarer.declare(connection, self._topology)
                    async with self._turn:
                        await intake.resume(self._prefetch)
                    raise_if_cancelled()
                    _log.info("consumer_started", queue=self._queue)
            if not self._is_renewing:
                _log.warning("consumer_lost", queue=self._queue, error=intake.reason)
        finally:
            if watching is not None:
                watching.cancel()
            self._intake = None
            intake.give_up("closed")
            await close_channel(channel, connection)
            intake.detach()

    async def _watch(self, connection: Connection, intake: Intake) -> None:
        """Give the channel up when the watchdog says so: another takes its place."""
        while True:
            if await self._watchdog.find(connection, intake, self._queue) is Finding.SILENT:
                metrics.SILENT_CONSUMERS.labels(self._queue).inc()
                intake.give_up("silent: events wait in the queue and none came")
            else:
                await self._renew(intake)

    async def _renew(self, intake: Intake) -> None:
        """Let another channel take the place of one without deliveries; a delivery that comes just now stays valid."""
        try:
            with cancellation_as_loss():
                async with self._turn:
                    await intake.set_prefetch(0)
                    if intake.has_unsettled:
                        await intake.set_prefetch(self._prefetch)
                    elif intake.is_open:
                        self._is_renewing = True
                        intake.give_up("renewed")
        except CONNECTION_ERRORS as error:
            intake.give_up(describe(error))
