"""How an authentic callback becomes durable: the broker confirms it in time, or the spool takes it."""

import asyncio
import time

import structlog

from broker import BrokerError, Message
from ingest.deadlines import Deadlines
from ingest.publisher import Publisher
from ingest.spool import Spool, SpoolError
from telemetry import locations, metrics

#: How long the transport has to say that a callback is durable.
PUBLISH_TIMEOUT_S = 2.5

#: How long the spool has to do so, after that.
SPOOL_TIMEOUT_S = 2.5

#: Whatever came before, nobody waits longer than this after a request's headers: its answer leaves within 8 s.
KEPT_BY_S = 7.5

_log = structlog.get_logger()


class NotKeptError(Exception):
    """Raised when a callback is not known to be durable. It may be, all the same."""


class Keeper:
    """Keeps callbacks through `transport` and `spool`; without a spool, through the transport alone.

    `max_unconfirmed` bounds how many wait for the broker at once: more go straight to the spool.
    """

    def __init__(self, transport: Publisher, spool: Spool | None, *, max_unconfirmed: int) -> None:
        self._transport = transport
        self._spool = spool
        self._max_unconfirmed = max_unconfirmed
        self._publishing = Deadlines(PUBLISH_TIMEOUT_S)
        self._spooling = Deadlines(SPOOL_TIMEOUT_S)

    @property
    def is_ready(self) -> bool:
        """Whether a callback could be kept now."""
        spool = self._spool
        if spool is None:
            return self._transport.is_ready
        return spool.is_ready or (self._transport.is_ready and not spool.breaker.is_open)

    async def keep(self, message: Message, *, began_s: float, hurries: bool = False) -> None:
        """Return once `message` is durable. Raises `NotKeptError` if it is not known to be.

        `began_s` is when its request's headers were complete, by the monotonic clock. One that `hurries` is not
        published: what waits for the broker takes memory, what is in the spool does not.
        """
        spool = self._spool
        if spool is None:
            if not await self._publish(message):
                raise NotKeptError
            return
        if not hurries and spool.live < self._max_unconfirmed and spool.breaker.allows():
            spool.live += 1
            try:
                is_confirmed = await self._publish(message)
            finally:
                spool.live -= 1
            if is_confirmed:
                spool.breaker.confirmed()
                return
            spool.breaker.failed()
        try:
            await self._put(spool, message, left_s=began_s + KEPT_BY_S - time.monotonic())
        except (SpoolError, TimeoutError):
            raise NotKeptError from None
        metrics.CALLBACKS_SPOOLED.inc()

    async def _publish(self, message: Message) -> bool:
        began_s = time.monotonic()
        try:
            # A transport bounds its publishes by itself; one that hangs is not waited for either.
            await self._publishing.bound(self._transport.publish(message))
        except (BrokerError, TimeoutError):
            return False
        except Exception as error:  # noqa: BLE001 - the sender can do nothing about it; the spool keeps it until somebody does
            _log.error("publishing_failed", error=type(error).__name__, frames=locations(error))
            return False
        finally:
            metrics.PUBLISH_SECONDS.observe(time.monotonic() - began_s)
        return True

    async def _put(self, spool: Spool, message: Message, *, left_s: float) -> None:
        if left_s >= SPOOL_TIMEOUT_S:
            await self._spooling.bound(spool.put(message))
        else:
            async with asyncio.timeout(left_s):
                await spool.put(message)
