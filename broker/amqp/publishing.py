"""Publishes so that a return means durable: persistent, confirmed, and never unroutable.

All that is published in one turn of the event loop leaves together, and the broker confirms in groups. Publishes are
numbered from 1 on a channel in confirm mode: https://www.rabbitmq.com/docs/confirms#publisher-confirms
"""

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeAlias

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
from broker.amqp.wire import (
    ACK,
    BODY,
    HEADER,
    METHOD,
    NACK,
    RETURN,
    Arrivals,
    Confirm,
    content_frames,
    publish_frame,
    read_confirm,
)
from broker.api import BrokerError, Message, NotPublishedError, OnPublished, TopologyConflictError
from broker.topology import Topology

_log = structlog.get_logger()

#: Deadlines are looked at no more often than this, so that many that pass one by one cost little.
_SWEEP_EVERY_S = 0.02

_MESSAGE_SIZE = re.compile(r"message size (\d+) ")
_CONFIRMS = frozenset({ACK, NACK})


class UnroutableError(Exception):
    """Raised when a message leads to no queue, or to no exchange."""


class ChannelLostError(Exception):
    """Raised when a channel ended before the broker had confirmed: the message may be there or not."""


#: Is told, once, what became of a publish: None, or `UnroutableError`, `ChannelLostError` or `NotPublishedError`.
_OnEnd: TypeAlias = Callable[[Exception | None], None]


class _Publish(Struct, frozen=True):
    """A message on its way."""

    on_end: _OnEnd
    exchange: str
    body_bytes: int
    deadline_s: float


class ConfirmChannel:
    """An open channel in confirm mode that nobody else publishes on, and what is not confirmed on it.

    It is used until `retire`, or until it is lost. What was published before is still confirmed after `retire`.
    """

    def __init__(self, connection: Connection, amqp: aiormq.abc.AbstractChannel) -> None:
        self.connection = connection
        self._amqp = amqp
        self._loop = asyncio.get_running_loop()
        self._closing = amqp.closing
        self._retired: asyncio.Future[str] = self._loop.create_future()
        self._settled = asyncio.Event()
        self._settled.set()
        self._unconfirmed: dict[int, _Publish] = {}
        self._last_tag = 0
        self._to_send: list[bytes] = []
        self._publish_frames: dict[tuple[str, str], bytes] = {}
        self._message_ids = f"{secrets.token_hex(8)}-"
        self._returning = Arrivals()
        self._sweep: asyncio.TimerHandle | None = None
        connection.wire.attach(amqp.number, self._take)
        self._closing.add_done_callback(self._on_closed)

    @property
    def is_open(self) -> bool:
        """Whether something can be published here."""
        return not (self._retired.done() or self._closing.done() or self.connection.wire.is_lost)

    def publish(self, message: Message, exchange: str, routing_key: str, deadline_s: float, on_end: _OnEnd) -> None:
        """Send a message with the others of this turn of the loop; `on_end` is called when the broker has confirmed it.

        Or with `UnroutableError`, `ChannelLostError`, or `NotPublishedError`: refused, or not confirmed by
        `deadline_s`, a time of the loop. It is called once, never before this returns.
        """
        # What cannot be written raises here, before it takes a number: all later confirms would be taken for others'.
        tag = self._last_tag + 1
        frames = self._render(message, exchange, routing_key, tag)
        if not self._to_send:
            self._loop.call_soon(self._send)
        self._to_send.append(frames)
        self._last_tag = tag
        self._unconfirmed[tag] = _Publish(on_end, exchange, len(message.body), deadline_s)
        self._settled.clear()
        if self._sweep is None or deadline_s < self._sweep.when():
            self._sweep_at(deadline_s)

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
        """Return once every publish has ended: each has its deadline."""
        await self._settled.wait()

    def let_go(self) -> None:
        """Fail what is not confirmed, and read nothing more of the channel."""
        self.retire("closed")
        self.connection.wire.detach(self._amqp.number, self._take)
        self._fail_all(None)
        self._closing.remove_done_callback(self._on_closed)
        self._closing.cancel()

    def _render(self, message: Message, exchange: str, routing_key: str, tag: int) -> bytes:
        number = self._amqp.number
        key = (exchange, routing_key)
        frame = self._publish_frames.get(key)
        if frame is None:
            frame = self._publish_frames[key] = publish_frame(number, exchange, routing_key)
        properties = render_properties(message, f"{self._message_ids}{tag}", routing_key=routing_key)
        return frame + content_frames(number, properties, message.body, self.connection.max_frame_bytes)

    def _send(self) -> None:
        frames, self._to_send = self._to_send, []
        self.connection.wire.write(b"".join(frames))

    def _take(self, kind: int, payload: bytes) -> bool:
        if kind in (HEADER, BODY):
            returned = self._returning.add(kind, payload)
            if returned is not None:
                tag = message_id_of(returned.properties).removeprefix(self._message_ids)
                self._end(int(tag), UnroutableError())
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
        for tag in self._up_to(confirm.tag) if confirm.multiple else [confirm.tag]:
            self._end(tag, None if confirm.is_kept else NotPublishedError("the broker refused the message"))

    def _up_to(self, last: int) -> list[int]:
        # 0 stands for all: https://www.rabbitmq.com/amqp-0-9-1-reference#basic.ack.delivery-tag
        tags = []
        for tag in self._unconfirmed:
            if last and tag > last:
                break
            tags.append(tag)
        return tags

    def _end(self, tag: int, error: Exception | None) -> None:
        """End one publish, unless it has ended before: returned, or too late."""
        publish = self._unconfirmed.pop(tag, None)
        if publish is None:
            return
        try:
            publish.on_end(error)
        except Exception:  # noqa: BLE001 - what one of them does is no other's matter
            _log.exception("publish_callback_failed")
        if not self._unconfirmed:
            self._settled.set()

    def _on_closed(self, closing: "asyncio.Future[object]") -> None:
        self._fail_all(loss_of(closing))

    def _fail_all(self, cause: BaseException | None) -> None:
        """End what is not confirmed: those that the broker closed the channel for, by what it says, and the others."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._to_send.clear()
        refused = describe(cause)
        for tag in list(self._unconfirmed):
            self._end(tag, _failure(self._unconfirmed[tag], cause, refused))

    def _sweep_at(self, when_s: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self._loop.call_at(when_s, self._fail_late)

    def _fail_late(self) -> None:
        self._sweep = None
        now_s = self._loop.time()
        late = [tag for tag, publish in self._unconfirmed.items() if publish.deadline_s <= now_s]
        for tag in late:
            self._end(tag, NotPublishedError("the broker did not confirm in time"))
        if self._unconfirmed:
            first_s = min(publish.deadline_s for publish in self._unconfirmed.values())
            self._sweep_at(max(first_s, now_s + _SWEEP_EVERY_S))
        if late and not self.connection.wire.is_blocked:
            # A channel is not to be trusted then: on some versions a quorum queue that was cut off takes nothing more
            # from it (https://github.com/rabbitmq/rabbitmq-server/pull/14589).
            self.retire("a confirm timed out")


def _failure(publish: _Publish, cause: BaseException | None, refused: str) -> Exception:
    if isinstance(cause, aiormq.ChannelNotFoundEntity) and f"'{publish.exchange}'" in refused:
        return UnroutableError()
    if isinstance(cause, aiormq.AMQPChannelError):
        size = _MESSAGE_SIZE.search(refused)
        if f"'{publish.exchange}'" in refused or (size and int(size[1]) == publish.body_bytes):
            return NotPublishedError(f"the broker refused the message: {refused}")
    return ChannelLostError()


class _Route(Struct, frozen=True):
    """Where a message goes; `fallback` is declared if somebody deleted what leads there."""

    exchange: str
    routing_key: str
    fallback: Topology


OPEN_TIMEOUT_S = 10.0


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

    async def publish(self, message: Message, *, exchange: str, routing_key: str, fallback: Topology) -> None:
        """Return once the broker keeps `message` in a queue. Raises `NotPublishedError` after the confirm time-out.

        A channel that is lost meanwhile is waited for, and the message published again: at worst it is there twice.
        `fallback` is declared if the message cannot be routed because somebody deleted what it needs.
        """
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s
        await self._publish(message, _Route(exchange, routing_key, fallback), deadline_s, None)

    def begin(
        self, message: Message, on_done: OnPublished, *, exchange: str, routing_key: str, fallback: Topology
    ) -> bool:
        """Begin a `publish`, if there is a channel for it; `on_done` is told how it ended, once, and never at once.

        False: nothing was begun.
        """
        channel = self._usable_channel()
        if channel is None:
            return False
        deadline_s = asyncio.get_running_loop().time() + self._confirm_timeout_s

        def on_end(error: Exception | None) -> None:
            if error is None or isinstance(error, BrokerError):
                on_done(error)
            else:
                going_on = self._go_on(message, _Route(exchange, routing_key, fallback), deadline_s, error, on_done)
                self._beside(going_on, name="amqp publish again")

        try:
            channel.publish(message, exchange, routing_key, deadline_s, on_end)
        except (ValueError, OverflowError):
            return False  # `publish` raises what is wrong with it
        return True

    async def _publish(self, message: Message, route: "_Route", deadline_s: float, failure: Exception | None) -> None:
        """Publish; after the failure of a first try, for another time."""
        declared = False
        while True:
            channel = self._usable_channel() or await self._wait_for_channel(deadline_s)
            if failure is None:
                try:
                    return await _publish_on(channel, message, route, deadline_s)
                except (ChannelLostError, UnroutableError) as error:
                    failure = error
            is_unroutable = isinstance(failure, UnroutableError)
            failure = None
            if is_unroutable:
                if declared:
                    raise NotPublishedError(f"{route.exchange or route.routing_key} leads to no queue")
                _log.warning("topology_missing", exchange=route.exchange, routing_key=route.routing_key)
                declared = True
                await self._ensure_topology(channel.connection, route.fallback, deadline_s)

    async def _go_on(
        self, message: Message, route: "_Route", deadline_s: float, failure: Exception, on_done: OnPublished
    ) -> None:
        """Go on with what was begun and failed, and tell how it ended, whatever happens."""
        outcome: BrokerError | None = NotPublishedError("the transport was closed before the broker confirmed")
        try:
            await self._publish(message, route, deadline_s, failure)
            outcome = None
        except BrokerError as error:
            outcome = error
        except Exception as error:
            outcome = NotPublishedError(f"not published: {type(error).__name__}")
            raise
        finally:
            _tell(on_done, outcome)

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


async def _publish_on(channel: ConfirmChannel, message: Message, route: _Route, deadline_s: float) -> None:
    """Publish on a channel, and raise what becomes of it. Whoever cancels it leaves the message on its way."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_end(error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    channel.publish(message, route.exchange, route.routing_key, deadline_s, on_end)
    await ended


def _tell(on_done: OnPublished, error: BrokerError | None) -> None:
    try:
        on_done(error)
    except Exception:  # noqa: BLE001 - what one of them does is no other's matter
        _log.exception("publish_callback_failed")


async def _end(channel: ConfirmChannel, amqp: aiormq.abc.AbstractChannel) -> None:
    try:
        await channel.wait_settled()
    finally:
        channel.let_go()
        await close_channel(amqp, channel.connection)
