"""Publishes so that a return means durable: persistent, confirmed, and never unroutable.

All that is published in one turn of the event loop leaves together, and the broker confirms in groups. Publishes are
numbered from 1 on a channel in confirm mode: https://www.rabbitmq.com/docs/confirms#publisher-confirms
"""

import asyncio
import math
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Self

import aiormq
import structlog
from msgspec import Struct

from broker.amqp.connection import (
    CONNECTION_ERRORS,
    Backoff,
    Connection,
    Link,
    cancellation_as_loss,
    close_channel,
    describe,
    let_fail,
    loss_of,
    raise_if_cancelled,
)
from broker.amqp.declaring import Declarer
from broker.amqp.headers import message_id_of, render_properties
from broker.amqp.plain import PlainPublishes, message_id
from broker.amqp.wire import (
    ACK,
    BODY,
    HEADER,
    METHOD,
    NACK,
    RETURN,
    Arrivals,
    Confirm,
    Piece,
    content_frames,
    publish_frame,
    read_confirm,
)
from broker.api import BrokerError, Message, NotPublishedError, OnPublished, TopologyConflictError
from broker.topology import Topology

_log = structlog.get_logger()

#: Deadlines are looked at no more often than this, so that many that pass one by one cost little.
_SWEEP_EVERY_S = 0.02

#: Larger bodies are written without a copy, each with a call of its own; below, that costs more than the copy.
_JOINED_BYTES = 16 * 1024

_MESSAGE_SIZE = re.compile(r"message size (\d+) ")
_CONFIRMS = frozenset({ACK, NACK})


class UnroutableError(Exception):
    """Raised when a message leads to no queue, or to no exchange."""


class ChannelLostError(Exception):
    """Raised when a channel ended before the broker had confirmed: the message may be there or not."""


class Route(Struct, frozen=True, eq=False):
    """Where messages go; `fallback` is declared if somebody deleted what leads there."""

    exchange: str
    routing_key: str
    fallback: Topology


class Begun(Struct, gc=False):
    """A publish on its way. One of the two is called once: `on_done` with None, or `on_failed` with what it became."""

    message: Message
    route: Route
    deadline_s: float
    on_done: OnPublished
    on_failed: "Callable[[Begun, Exception], None]"


class ConfirmChannel:
    """An open channel in confirm mode that nobody else publishes on, and what is not confirmed on it.

    It is used until `retire`, or until it is lost. What was published before is still confirmed after `retire`.
    `common` are the routes of nearly all messages.
    """

    def __init__(self, connection: Connection, amqp: aiormq.abc.AbstractChannel, common: Sequence[Route] = ()) -> None:
        self.connection = connection
        self._amqp = amqp
        self._loop = asyncio.get_running_loop()
        self._closing = amqp.closing
        self._retired: asyncio.Future[str] = self._loop.create_future()
        self._settled: asyncio.Future[None] | None = None
        #: By their numbers, in this order.
        self._unconfirmed: dict[int, Begun] = {}
        self._last_tag = 0
        self._to_send: list[Piece] = []
        self._message_ids = f"{secrets.token_hex(8)}-"
        self._plain = {
            route: PlainPublishes(
                amqp.number, route.exchange, route.routing_key, self._message_ids, connection.max_frame_bytes
            )
            for route in common
        }
        self._returning = Arrivals()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_at_s = math.inf
        connection.wire.attach(amqp.number, self._take)
        self._closing.add_done_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """Whether something can be published here."""
        return not (self._retired.done() or self._closing.done() or self.connection.wire.is_lost)

    def publish(self, begun: Begun) -> None:
        """Send a message with the others of this turn of the loop; it is done when the broker has confirmed it.

        It fails with `UnroutableError`, `ChannelLostError`, or `NotPublishedError`: refused, or not confirmed by its
        deadline, a time of the loop. Neither happens before this returns.
        """
        # What cannot be written raises here, before it takes a number: all later confirms would be taken for others'.
        tag = self._last_tag + 1
        plain = self._plain.get(begun.route)
        frames = (plain and plain.frames(begun.message, tag)) or self._render(begun.message, begun.route, tag)
        self._last_tag = tag
        self._unconfirmed[tag] = begun
        if len(begun.message.body) > _JOINED_BYTES:
            self._send()
            self.connection.wire.write_pieces(frames)
        else:
            if not self._to_send:
                self._loop.call_soon(self._send)
            self._to_send += frames
        if begun.deadline_s < self._sweep_at_s:
            self._look_for_late_at(begun.deadline_s)

    def retire(self, reason: str) -> None:
        """Let nothing more be published here."""
        if not self._retired.done():
            self._retired.set_result(reason)

    async def wait_retired(self) -> str:
        """Return, with the reason, once nothing can be published here any more."""
        await asyncio.wait((self._closing, self._retired), return_when=asyncio.FIRST_COMPLETED)
        if self._retired.done():
            return self._retired.result()
        return describe(loss_of(self._closing))

    async def wait_settled(self) -> None:
        """Return once every publish has ended: each has its deadline. To be called when nothing more is published."""
        if self._unconfirmed:
            self._settled = self._loop.create_future()
            await self._settled

    def let_go(self) -> None:
        """Fail what is not confirmed, and read nothing more of the channel."""
        self.retire("closed")
        self.connection.wire.detach(self._amqp.number, self._take)
        self._fail_all(None)
        self._closing.remove_done_callback(self._on_closed)
        self._closing.cancel()

    def _render(self, message: Message, route: Route, tag: int) -> list[Piece]:
        number = self._amqp.number
        properties = render_properties(message, message_id(self._message_ids, tag), routing_key=route.routing_key)
        content = content_frames(number, properties, message.body, self.connection.max_frame_bytes)
        return [publish_frame(number, route.exchange, route.routing_key), *content]

    def _send(self) -> None:
        if self._to_send:
            frames, self._to_send = self._to_send, []
            self.connection.wire.write(b"".join(frames))

    def _take(self, kind: int, payload: bytes) -> bool:
        if kind in (HEADER, BODY):
            returned = self._returning.add(kind, payload)
            if returned is not None:
                number = message_id_of(returned.properties).removeprefix(self._message_ids)
                self._fail(int(number, 16), UnroutableError())
            return True
        method = payload[:4]
        if kind == METHOD and method in _CONFIRMS:
            self._on_confirm(read_confirm(payload))
            return True
        if kind == METHOD and method == RETURN:
            self._returning.begin(payload)
            return True
        return False

    def _on_confirm(self, confirm: Confirm) -> None:
        tags = self._up_to(confirm.tag) if confirm.multiple else [confirm.tag]
        if not confirm.is_kept:
            for tag in tags:
                self._fail(tag, NotPublishedError("the broker refused the message"))
            return
        for tag in tags:
            # One may have ended before: returned, or too late.
            begun = self._unconfirmed.pop(tag, None)
            if begun is not None:
                try:
                    begun.on_done(None)
                except Exception:  # noqa: BLE001 - what one of them does is no other's matter
                    _log.exception("publish_callback_failed")
        self._note_settled()

    def _up_to(self, last: int) -> list[int]:
        # 0 stands for all: https://www.rabbitmq.com/amqp-0-9-1-reference#basic.ack.delivery-tag
        return list(takewhile(last.__ge__, self._unconfirmed) if last else self._unconfirmed)

    def _fail(self, tag: int, error: Exception) -> None:
        """End one publish, unless it has ended before."""
        begun = self._unconfirmed.pop(tag, None)
        if begun is not None:
            try:
                begun.on_failed(begun, error)
            except Exception:  # noqa: BLE001 - as in `_on_confirm`
                _log.exception("publish_callback_failed")
            self._note_settled()

    def _note_settled(self) -> None:
        if self._settled is not None and not self._unconfirmed and not self._settled.done():
            self._settled.set_result(None)

    def _on_closed(self, closing: "asyncio.Future[object]") -> None:
        self._fail_all(loss_of(closing))

    def _fail_all(self, cause: BaseException | None) -> None:
        """End what is not confirmed: those that the broker closed the channel for, by what it says, and the others."""
        self._look_for_late_at(math.inf)
        self._to_send.clear()
        refused = describe(cause)
        for tag in list(self._unconfirmed):
            self._fail(tag, _failure(self._unconfirmed[tag], cause, refused))

    def _look_for_late_at(self, when_s: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at_s = when_s
        self._sweep = self._loop.call_at(when_s, self._fail_late) if when_s < math.inf else None

    def _fail_late(self) -> None:
        now_s = self._loop.time()
        late = [tag for tag, begun in self._unconfirmed.items() if begun.deadline_s <= now_s]
        for tag in late:
            self._fail(tag, NotPublishedError("the broker did not confirm in time"))
        first_s = min((begun.deadline_s for begun in self._unconfirmed.values()), default=math.inf)
        self._look_for_late_at(max(first_s, now_s + _SWEEP_EVERY_S))
        if late and not self.connection.wire.is_blocked:
            # A channel is not to be trusted then: on some versions a quorum queue that was cut off takes nothing more
            # from it (https://github.com/rabbitmq/rabbitmq-server/pull/14589).
            self.retire("a confirm timed out")


def _failure(begun: Begun, cause: BaseException | None, refused: str) -> Exception:
    exchange = f"'{begun.route.exchange}'"
    if isinstance(cause, aiormq.ChannelNotFoundEntity) and exchange in refused:
        return UnroutableError()
    if isinstance(cause, aiormq.AMQPChannelError):
        size = _MESSAGE_SIZE.search(refused)
        if exchange in refused or (size and int(size[1]) == len(begun.message.body)):
            return NotPublishedError(f"the broker refused the message: {refused}")
    return ChannelLostError()


OPEN_TIMEOUT_S = 10.0


class Publisher:
    """Keeps a channel that does nothing but publish: any refused request would close it for everybody.

    An async context manager; entering returns at once. `topology` is declared before the first publish; `common` are
    the routes of nearly all messages.
    """

    def __init__(
        self,
        link: Link,
        declarer: Declarer,
        topology: Topology,
        *,
        confirm_timeout_s: float,
        common: Sequence[Route] = (),
    ) -> None:
        self._link = link
        self._declarer = declarer
        self._topology = topology
        self._confirm_timeout_s = confirm_timeout_s
        self._common = common
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
        # One that ends may leave others behind: those whose channel it was go on by themselves.
        while tasks := set(self._beside_tasks):
            for task in tasks:
                task.cancel()
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

    async def publish(self, message: Message, route: Route) -> None:
        """Return once the broker keeps `message` in a queue. Raises `NotPublishedError` after the confirm time-out.

        A channel that is lost meanwhile is waited for, and the message published again: at worst it is there twice.
        What its route needs is declared anew if the message cannot be routed because somebody deleted that.
        """
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s
        await self._publish(message, route, deadline_s)

    def begin(self, message: Message, route: Route, on_done: OnPublished) -> bool:
        """Begin a `publish`, if there is a channel for it; `on_done` is told how it ended, once, and never at once.

        False: nothing was begun.
        """
        channel = self._usable_channel()
        if channel is None:
            return False
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s
        try:
            channel.publish(Begun(message, route, deadline_s, on_done, self._on_failed))
        except (ValueError, OverflowError):
            return False  # `publish` raises what is wrong with it
        return True

    def _on_failed(self, begun: Begun, error: Exception) -> None:
        if isinstance(error, NotPublishedError):
            begun.on_done(error)
        else:
            again = self._publish(begun.message, begun.route, begun.deadline_s, error)
            self._beside(again, name="amqp publish again").add_done_callback(partial(_tell, begun.on_done))

    async def _publish(
        self, message: Message, route: Route, deadline_s: float, failure: Exception | None = None
    ) -> None:
        """Publish until it is confirmed or too late; `failure` is that of a first try, after which this one goes on."""
        declared = False
        while True:
            channel = self._usable_channel() or await self._wait_for_channel(deadline_s)
            if failure is None:
                try:
                    return await _publish_on(channel, message, route, deadline_s)
                except (ChannelLostError, UnroutableError) as error:
                    failure = error
            if isinstance(failure, UnroutableError):
                if declared:
                    raise NotPublishedError(f"{route.exchange or route.routing_key} leads to no queue")
                _log.warning("topology_missing", exchange=route.exchange, routing_key=route.routing_key)
                declared = True
                await self._ensure_topology(channel.connection, route.fallback, deadline_s)
            failure = None

    async def _ensure_topology(self, connection: Connection, fallback: Topology, deadline_s: float) -> None:
        # In a task of its own: to interrupt a declaration takes time, too, which the deadline does not have.
        mending = self._beside(self._declarer.declare(connection, fallback), name="amqp fallback topology")
        await asyncio.wait((mending,), timeout=deadline_s - asyncio.get_running_loop().time())
        if not mending.done():
            mending.add_done_callback(let_fail)
            raise NotPublishedError(self._not_published())
        if mending.cancelled():
            return
        match mending.exception():
            case TopologyConflictError() as conflict:
                raise NotPublishedError(str(conflict)) from conflict
            case BaseException() as lost:
                self._problem = describe(lost)

    def _not_published(self) -> str:
        problem = self._problem if self._link.is_connected else self._link.problem or self._problem
        return f"not published in {self._confirm_timeout_s:g} s: {problem}"

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
            raise NotPublishedError(self._not_published()) from None
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
        channel = ConfirmChannel(connection, amqp, self._common)
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


async def _publish_on(channel: ConfirmChannel, message: Message, route: Route, deadline_s: float) -> None:
    """Publish on a channel, and raise what becomes of it. Whoever cancels it leaves the message on its way."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_done(_: BrokerError | None) -> None:
        if not ended.done():
            ended.set_result(None)

    def on_failed(_: Begun, error: Exception) -> None:
        if not ended.done():
            ended.set_exception(error)

    channel.publish(Begun(message, route, deadline_s, on_done, on_failed))
    await ended


def _tell(on_done: OnPublished, publishing: "asyncio.Task[None]") -> None:
    """Tell how a publish ended that took more than one try."""
    error: BaseException | None
    if publishing.cancelled():
        error = NotPublishedError("the transport was closed before the broker confirmed")
    elif (error := publishing.exception()) is not None and not isinstance(error, BrokerError):
        _log.error("publish_failed", exc_info=error)
        error = NotPublishedError(f"not published: {type(error).__name__}")
    on_done(error)


async def _end(channel: ConfirmChannel, amqp: aiormq.abc.AbstractChannel) -> None:
    try:
        await channel.wait_settled()
    finally:
        channel.let_go()
        await close_channel(amqp, channel.connection)
