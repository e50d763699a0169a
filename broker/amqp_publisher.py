"""Publishes so that a return means durable: persistent, confirmed, and never unroutable."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import aiormq
import structlog

from broker.amqp_confirms import ChannelLostError, ConfirmChannel, UnroutableError
from broker.amqp_connection import (
    CONNECTION_ERRORS,
    Connection,
    cancellation_as_loss,
    close_channel,
    describe,
    let_fail,
    raise_if_cancelled,
)
from broker.amqp_link import Backoff, Link
from broker.amqp_topology import Declarer
from broker.errors import NotPublishedError, TopologyConflictError
from broker.message import Message
from broker.topology import Topology

OPEN_TIMEOUT_S = 10.0

_log = structlog.get_logger()


class Publisher:
    """Keeps a channel that does nothing but publish: any refused request would close it for everybody.

    An async context manager; entering returns at once. `topology` is declared before the first publish.
    """

    def __init__(self, link: Link, declarer: Declarer, topology: Topology, *, confirm_timeout_s: float) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._confirm_timeout_s = confirm_timeout_s
        self._channel: ConfirmChannel | None = None
        self._usable = asyncio.Event()
        self._problem = "the broker has not been reached yet"
        self._task: asyncio.Task[None] | None = None
        self._beside_tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="amqp publisher")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        tasks = set(self._beside_tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def is_ready(self) -> bool:
        """Whether there is a channel to publish on, with the topology declared, and the broker reads from it."""
        return self._usable_channel() is not None

    async def wait_ready(self) -> None:
        """Return once `is_ready`."""
        while self._usable_channel() is None:
            self._usable.clear()
            await self._usable.wait()

    async def publish(self, message: Message, *, exchange: str, routing_key: str, belt: Topology) -> None:
        """Return once the broker keeps `message` in a queue. Raises `NotPublishedError` after the confirm time-out.

        A channel that is lost meanwhile is waited for, and the message published again: at worst it is there twice.
        `belt` is declared if the message cannot be routed because somebody deleted what it needs.
        """
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s
        declared = False
        while True:
            channel = self._usable_channel() or await self._wait_for_channel(deadline_s)
            try:
                return await channel.publish(message, exchange, routing_key, deadline_s)
            except ChannelLostError:
                continue
            except UnroutableError:
                if declared:
                    raise NotPublishedError(f"{exchange or routing_key} leads to no queue") from None
            _log.warning("topology_missing", exchange=exchange, routing_key=routing_key)
            declared = True
            await self._mend(channel.connection, belt, deadline_s)

    async def _mend(self, connection: Connection, belt: Topology, deadline_s: float) -> None:
        # In a task of its own: to interrupt a declaration takes time, too, which the deadline does not have.
        mending = self._beside(self._declarer.declare(connection, belt), name="amqp belt")
        await asyncio.wait((mending,), timeout=deadline_s - asyncio.get_running_loop().time())
        if not mending.done():
            mending.add_done_callback(let_fail)
            raise NotPublishedError(f"not published in {self._confirm_timeout_s:g} s: {self._problem}")
        if mending.cancelled():
            return
        match mending.exception():
            case TopologyConflictError() as conflict:
                raise NotPublishedError(str(conflict)) from conflict
            case BaseException() as lost:
                self._problem = describe(lost)

    def _usable_channel(self) -> ConfirmChannel | None:
        channel = self._channel
        if channel is None or not channel.is_open or channel.connection.wire.is_blocked:
            return None
        return channel

    async def _wait_for_channel(self, deadline_s: float) -> ConfirmChannel:
        try:
            async with asyncio.timeout_at(deadline_s):
                while (channel := self._usable_channel()) is None:
                    self._usable.clear()
                    await self._usable.wait()
        except TimeoutError:
            raise NotPublishedError(f"not published in {self._confirm_timeout_s:g} s: {self._problem}") from None
        return channel

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            connection = await self._link.connection()
            try:
                with cancellation_as_loss():
                    await self._serve(connection, backoff)
                continue
            except TopologyConflictError as conflict:
                if self._problem != str(conflict):
                    _log.error("topology_conflict", error=str(conflict))
                self._problem = str(conflict)
            except CONNECTION_ERRORS as error:
                self._problem = describe(error)
                _log.warning("publish_channel_failed", error=self._problem)
                if not connection.is_open:
                    continue
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would open a channel again
                _log.exception("publish_channel_failed")
            await backoff.wait()

    async def _serve(self, connection: Connection, backoff: Backoff) -> None:
        """Declare, open a channel and stay until it is lost or retired."""
        connection.wire.on_blocked = self._on_blocked
        await self._declarer.declare(connection, self._topology)
        amqp = await connection.amqp.channel(publisher_confirms=True, timeout=OPEN_TIMEOUT_S)
        channel = ConfirmChannel(connection, amqp)
        try:
            raise_if_cancelled()
            self._channel = channel
            self._problem = "the broker does not answer"
            self._usable.set()
            with backoff.working():
                reason = await channel.wait_retired()
            _log.warning("publish_channel_lost", error=reason)
        finally:
            self._channel = None
            # Beside the next channel: what was published on this one can still be confirmed.
            self._beside(_end(channel, amqp), name="amqp publish channel")

    def _beside(self, work: Coroutine[Any, Any, None], *, name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._beside_tasks.add(task)
        task.add_done_callback(self._beside_tasks.discard)
        return task

    def _on_blocked(self) -> None:
        channel = self._channel
        if channel is None:
            return
        if channel.connection.wire.is_blocked:
            self._problem = "the broker takes nothing: it is short of memory or disk space"
            _log.warning("broker_blocked")
        else:
            self._problem = "the broker does not answer"
            _log.info("broker_unblocked")
            self._usable.set()


async def _end(channel: ConfirmChannel, amqp: aiormq.abc.AbstractChannel) -> None:
    try:
        await channel.wait_settled()
    finally:
        channel.let_go()
        await close_channel(amqp, channel.connection)
