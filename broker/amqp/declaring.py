"""Declares the topology in a broker. Declaring what is there already changes nothing."""

import asyncio
import re
from typing import Any

import aiormq

from broker.amqp.connection import Connection, close_channel, describe
from broker.api import TopologyConflictError
from broker.topology import Exchange, Queue, Topology

#: In seconds, for each declaration. The first quorum queue of a broker takes a while.
DECLARE_TIMEOUT_S = 15.0

#: How long the declarations of another are waited for.
TURN_TIMEOUT_S = 2.0

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)'.*?received (?P<ours>.*?) but current is (?P<theirs>.*)"
)


class Declarer:
    """Declares one topology at a time: two that make the same quorum queue at once can meet while it is half made."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def declare(self, connection: Connection, topology: Topology) -> None:
        """Make all of `topology` exist; see `declare`.

        Whoever hangs on another connection is not waited for: at worst a declaration fails, and is repeated.
        """
        try:
            async with asyncio.timeout(TURN_TIMEOUT_S):
                await self._lock.acquire()
        except TimeoutError:
            await declare(connection, topology)
            return
        try:
            await declare(connection, topology)
        finally:
            self._lock.release()


async def declare(connection: Connection, topology: Topology) -> None:
    """Make all of `topology` exist, on a channel of its own: a refused declaration closes the channel.

    A user that may not declare anything can work with what somebody else has declared. Raises `TopologyConflictError`
    if something exists with other arguments or a limit of the broker forbids it, and whatever the connection raises.
    """
    channel = await connection.amqp.channel(publisher_confirms=False, timeout=DECLARE_TIMEOUT_S)
    try:
        for exchange in topology.exchanges:
            await _declare_exchange(channel, exchange)
        for queue in topology.queues:
            await _declare_queue(channel, queue)
    except aiormq.ChannelAccessRefused:
        if not await _is_there(connection, topology):
            raise
    finally:
        await close_channel(channel, connection)


async def _is_there(connection: Connection, topology: Topology) -> bool:
    """Say whether all exchanges and queues exist; their arguments and bindings cannot be seen."""
    channel = await connection.amqp.channel(publisher_confirms=False, timeout=DECLARE_TIMEOUT_S)
    try:
        for exchange in topology.exchanges:
            await channel.exchange_declare(exchange.name, passive=True, timeout=DECLARE_TIMEOUT_S)
        for queue in topology.queues:
            await channel.queue_declare(queue.name, passive=True, timeout=DECLARE_TIMEOUT_S)
    except (aiormq.ChannelNotFoundEntity, aiormq.ChannelAccessRefused):
        return False
    finally:
        await close_channel(channel, connection)
    return True


async def _declare_exchange(channel: aiormq.abc.AbstractChannel, exchange: Exchange) -> None:
    arguments: dict[str, Any] = {} if exchange.alternate is None else {"alternate-exchange": exchange.alternate}
    try:
        await channel.exchange_declare(
            exchange.name, exchange_type=exchange.kind, durable=True, arguments=arguments, timeout=DECLARE_TIMEOUT_S
        )
    except aiormq.ChannelPreconditionFailed as error:
        remedy = "delete it (in the management page, under Exchanges)"
        raise _conflict("exchange", exchange.name, error, remedy) from error


async def _declare_queue(channel: aiormq.abc.AbstractChannel, queue: Queue) -> None:
    try:
        await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments, timeout=DECLARE_TIMEOUT_S)
    except aiormq.ChannelPreconditionFailed as error:
        remedy = f"let it run empty and delete it (rabbitmqctl delete_queue {queue.name} --if-empty)"
        raise _conflict("queue", queue.name, error, remedy) from error
    for exchange, routing_key in queue.bindings:
        await channel.queue_bind(queue.name, exchange, routing_key, timeout=DECLARE_TIMEOUT_S)


def _conflict(kind: str, name: str, error: Exception, remedy: str) -> TopologyConflictError:
    text = describe(error)
    found = _INEQUIVALENT.search(text)
    if found is None:
        # A limit of the virtual host, for one.
        return TopologyConflictError(f"the broker refuses {kind} {name}: {text}")
    what = f"argument {found['argument']} (ours {found['ours']}, the broker's {found['theirs']})"
    return TopologyConflictError(f"{kind} {name} exists with another {what}: {remedy}; it is then declared anew")
