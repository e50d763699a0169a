"""Counts and removes queues, on a short connection of its own: it works while publishing is blocked by an alarm."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiormq
import structlog
from msgspec import Struct
from yarl import URL

from broker.amqp.connection import (
    CONNECTION_ERRORS,
    Connection,
    cancellation_as_loss,
    close_channel,
    describe,
    loss_of,
)
from broker.amqp.endpoints import Brokers, Endpoint
from broker.api import BrokerError, BrokerInfo, MissingQueueError, QueueState
from broker.topology import EVENTS_EXCHANGE, ORPHANED_QUEUE, dead_queue_name, queue_name, retry_name

TIMEOUT_S = 2.0
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}

#: What a policy must not set on a queue of ours: an event would expire, be dropped, or go elsewhere. A queue's own
#: arguments outrank policies, but not operator policies: https://www.rabbitmq.com/docs/policies
HARMFUL = frozenset(
    {"message-ttl", "expires", "max-length", "max-length-bytes", "overflow", "dead-letter-exchange", "delivery-limit"}
)

_log = structlog.get_logger()


class Management:
    """Reads the management API of one broker, at `url` or at its usual port, with the broker's credentials."""

    def __init__(self, endpoint: Endpoint, *, url: str | None = None) -> None:
        scheme, port = _PORTS[endpoint.url.scheme]
        self._base = URL(url) if url else URL.build(scheme=scheme, host=endpoint.url.host or "", port=port)
        self._vhost = quote(endpoint.url.path.removeprefix("/") or "/", safe="")
        credentials = f"{endpoint.url.user or 'guest'}:{endpoint.url.password or 'guest'}"
        self._headers = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}

    async def unacked(self) -> dict[str, int] | None:
        """Return the deliveries that are not settled, by queue. The broker counts every few seconds."""
        queues = await self._get(f"queues/{self._vhost}?columns=name,messages_unacknowledged")
        if not isinstance(queues, list):
            return None
        return {queue["name"]: queue.get("messages_unacknowledged", 0) for queue in queues}

    async def alarms(self) -> tuple[str, ...] | None:
        """Return the alarms that stop publishing now: `memory` or `disk`, each with the node that raised it."""
        nodes = await self._get("nodes?columns=name,mem_alarm,disk_free_alarm")
        if not isinstance(nodes, list):
            return None
        return tuple(
            f"{alarm} on {node['name']}"
            for node in nodes
            for alarm, field in (("memory", "mem_alarm"), ("disk", "disk_free_alarm"))
            if node.get(field)
        )

    async def feature_flags_disabled(self) -> tuple[str, ...] | None:
        """Return the feature flags that are disabled and should not be: experimental ones are (khepri_db on 4.0)."""
        flags = await self._get("feature-flags")
        if not isinstance(flags, list):
            return None
        return tuple(
            flag["name"]
            for flag in flags
            if flag.get("state") == "disabled" and flag.get("stability") != "experimental"
        )

    async def harmful_policies(self) -> tuple[str, ...] | None:
        """Return which policies let the broker lose events of our queues, or refuse them, and what they set."""
        columns = "name,policy,operator_policy,effective_policy_definition"
        queues = await self._get(f"queues/{self._vhost}?columns={columns}")
        if not isinstance(queues, list):
            return None
        found: dict[str, list[str]] = {}
        for queue in queues:
            definition = queue.get("effective_policy_definition")
            # Without any it is an empty list.
            if not queue["name"].startswith("tiw.") or not isinstance(definition, dict):
                continue
            settings = ", ".join(f"{key} = {value}" for key, value in sorted(definition.items()) if key in HARMFUL)
            names = " and ".join(name for name in (queue.get("policy"), queue.get("operator_policy")) if name)
            if settings:
                found.setdefault(f"{names} sets {settings}", []).append(queue["name"])
        return tuple(
            f"{what} on {len(names)} queues ({names[0]}{', ...' if len(names) > 1 else ''})"
            for what, names in sorted(found.items())
        )

    async def _get(self, path: str) -> Any:
        # Imported where it is asked: a worker that never asks would have it in memory for ever.
        import aiohttp  # noqa: PLC0415

        url = URL(f"{str(self._base).rstrip('/')}/api/{path}", encoded=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers=self._headers) as session,
                session.get(url) as response,
            ):
                if response.status != HTTPStatus.OK:
                    return None
                return await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.debug(
                "management_not_answering", host=self._base.host, port=self._base.port, error=type(error).__name__
            )
            return None


REQUEST_TIMEOUT_S = 5.0


class Counts(Struct, frozen=True, kw_only=True):
    """What waits in a queue, and how many consumers it has."""

    ready: int
    consumers: int


class Inspection:
    """Looks at the first of `brokers` that answers. Raises `BrokerError` if none does."""

    def __init__(
        self, brokers: Brokers, *, retry_delays_s: Sequence[float] = (), management_url: str | None = None
    ) -> None:
        self._brokers = brokers
        self._retry_queues = [retry_name(delay_s) for delay_s in retry_delays_s]
        self._management_url = management_url

    async def inspect(self, consumers: Sequence[str]) -> list[QueueState]:
        """Count what waits in the queues of `consumers`, in their order."""
        async with self._connected() as (connection, management):
            unacked = await management.unacked() if consumers else None
            return [await _inspect(connection, consumer, unacked) for consumer in consumers]

    async def count_retrying(self) -> int:
        """Count what waits in the queues of the retry delays."""
        async with self._connected() as (connection, _):
            counts = [await count(connection, queue) for queue in self._retry_queues]
        return sum(counted.ready for counted in counts if counted)

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
        was_reached = False
        try:
            async with self._connected() as (connection, management):
                was_reached = True
                return await _describe(connection, management)
        except BrokerError:
            if not was_reached:
                raise
        # A request that crosses a refusal on its way ends the connection, not only its channel ("expected
        # 'channel.open'"): once more.
        async with self._connected() as (connection, management):
            return await _describe(connection, management)

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


async def _describe(connection: Connection, management: Management) -> BrokerInfo:
    properties = connection.amqp.server_properties
    orphaned = await count(connection, ORPHANED_QUEUE)
    alarms = await management.alarms()
    return BrokerInfo(
        product=str(properties.get("product", "")),
        version=str(properties.get("version", "")),
        feature_flags_disabled=await management.feature_flags_disabled(),
        alarms=alarms,
        orphaned=orphaned.ready if orphaned else 0,
        harmful_policies=await management.harmful_policies(),
        # A broker with an alarm reads nothing more from whoever publishes.
        refusals=() if alarms else await _refusals(connection),
    )


async def _refusals(connection: Connection) -> tuple[str, ...]:
    """Return what the broker says to a publish of each kind and to a look into a queue, where it refuses them.

    Nothing stays of it: a publish that is rolled back reaches no queue, and what is looked at is put back. Only where
    the topology is there; else its declaration tells.
    """
    refused: list[str] = []
    for ask in (_publish_to(EVENTS_EXCHANGE), _publish_to(""), _get):
        channel = await connection.amqp.channel(publisher_confirms=False, timeout=REQUEST_TIMEOUT_S)
        try:
            with cancellation_as_loss():
                await ask(channel)
        except TimeoutError:
            # An alarm that nobody told of.
            return tuple(refused)
        except CONNECTION_ERRORS as error:
            # What fails may be the request that was under way: why the channel closed, it tells by itself.
            await asyncio.wait((channel.closing,), timeout=REQUEST_TIMEOUT_S)
            reason = loss_of(channel.closing) if channel.closing.done() else error
            if isinstance(reason, aiormq.ChannelAccessRefused):
                refused.append(describe(reason))
            elif not isinstance(reason, aiormq.ChannelNotFoundEntity):
                raise
        finally:
            await close_channel(channel, connection)
    return tuple(refused)


def _publish_to(exchange: str) -> Callable[[aiormq.abc.AbstractChannel], Awaitable[None]]:
    async def ask(channel: aiormq.abc.AbstractChannel) -> None:
        await channel.tx_select(timeout=REQUEST_TIMEOUT_S)
        # Without a confirm nothing is waited for: a refusal ends the next request.
        await channel.basic_publish(b"", exchange=exchange, routing_key=ORPHANED_QUEUE)
        await channel.tx_rollback(timeout=REQUEST_TIMEOUT_S)

    return ask


async def _get(channel: aiormq.abc.AbstractChannel) -> None:
    # Its messages may come back as often as they like; leaving the channel returns them.
    await channel.basic_get(ORPHANED_QUEUE, timeout=REQUEST_TIMEOUT_S)


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
