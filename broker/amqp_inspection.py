"""Counts and removes queues, on a short connection of its own: it works while publishing is blocked by an alarm."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import aiormq
from msgspec import Struct

from broker.amqp_connection import CONNECTION_ERRORS, Connection, cancellation_as_loss, describe
from broker.amqp_endpoints import Brokers, Endpoint
from broker.amqp_management import Management
from broker.errors import BrokerError, MissingQueueError
from broker.protocol import BrokerInfo, QueueState
from broker.topology import ORPHANED_QUEUE, dead_queue_name, queue_name

REQUEST_TIMEOUT_S = 5.0


class Counts(Struct, frozen=True, kw_only=True):
    """What waits in a queue, and how many consumers it has."""

    ready: int
    consumers: int


class Inspection:
    """Looks at the first of `brokers` that answers. Raises `BrokerError` if none does."""

    def __init__(self, brokers: Brokers, *, management_url: str | None = None) -> None:
        self._brokers = brokers
        self._management_url = management_url

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits in the queues of `consumers`, in their order."""
        async with self._connected() as (connection, management):
            unacked = await management.unacked() if consumers else None
            return [await _inspect(connection, consumer, unacked) for consumer in consumers]

    async def remove(self, consumer: str, *, force: bool) -> None:
        """Delete a consumer's queues.

        Raises `MissingQueueError` if it has none; `BrokerError`, unless `force`, while events wait in them or a
        worker is connected.
        """
        names = (queue_name(consumer), dead_queue_name(consumer))
        async with self._connected() as (connection, management):
            counts = [await count(connection, name) for name in names]
            if counts == [None, None]:
                raise MissingQueueError(f"the broker has no queue {names[0]}")
            if not force:
                _refuse_to_lose(consumer, counts, await management.unacked() or {})
            channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
            for name in names:
                await channel.queue_delete(name, timeout=REQUEST_TIMEOUT_S)

    async def info(self) -> BrokerInfo:
        """Describe the broker."""
        async with self._connected() as (connection, management):
            properties = connection.amqp.server_properties
            orphaned = await count(connection, ORPHANED_QUEUE)
            return BrokerInfo(
                product=str(properties.get("product", "")),
                version=str(properties.get("version", "")),
                feature_flags_disabled=await management.feature_flags_disabled(),
                alarms=await management.alarms(),
                orphaned=orphaned.ready if orphaned else 0,
            )

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[Connection, Management]]:
        connection, endpoint = await self._connect()
        try:
            with cancellation_as_loss():
                yield connection, Management(endpoint, url=self._management_url)
        except CONNECTION_ERRORS as error:
            raise BrokerError(f"the broker at {endpoint.name} did not answer: {describe(error)}") from error
        finally:
            await connection.close()

    async def _connect(self) -> tuple[Connection, Endpoint]:
        problems = []
        for endpoint in self._brokers.in_turn():
            try:
                with cancellation_as_loss():
                    return await self._open(endpoint), endpoint
            except CONNECTION_ERRORS as error:
                problems.append(f"{endpoint.name}: {describe(error)}")
        raise BrokerError(f"no broker can be reached ({'; '.join(problems)})")

    async def _open(self, endpoint: Endpoint) -> Connection:
        return await Connection.open(endpoint, name="inspection", resolver=self._brokers.resolver)


async def _inspect(connection: Connection, consumer: str, unacked: dict[str, int] | None) -> QueueState:
    live = await count(connection, queue_name(consumer))
    dead = await count(connection, dead_queue_name(consumer))
    return QueueState(
        consumer=consumer,
        exists=live is not None,
        ready=live.ready if live else 0,
        unacked=None if unacked is None else unacked.get(queue_name(consumer), 0),
        connected=live.consumers if live else 0,
        dead=dead.ready if dead else 0,
    )


async def count(connection: Connection, queue: str) -> Counts | None:
    """Count now, by a passive declaration; None if there is no such queue, which costs the channel."""
    channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
    try:
        found = await channel.queue_declare(queue, passive=True, timeout=REQUEST_TIMEOUT_S)
    except aiormq.ChannelNotFoundEntity:
        return None
    await channel.close()
    return Counts(ready=found.message_count or 0, consumers=found.consumer_count or 0)


def _refuse_to_lose(consumer: str, counts: Sequence[Counts | None], unacked: dict[str, int]) -> None:
    waiting = sum(counted.ready for counted in counts if counted)
    waiting += unacked.get(queue_name(consumer), 0) + unacked.get(dead_queue_name(consumer), 0)
    if waiting:
        raise BrokerError(f"{waiting} events wait in the queues of {consumer}: let them be handled, or use force")
    if any(counted.consumers for counted in counts if counted):
        raise BrokerError(f"a worker of {consumer} is connected and would make its queue again: stop it first")
