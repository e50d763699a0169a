"""One callback, from its request to its answer."""

import asyncio
import time

import structlog
from aiohttp import web
from prometheus_client import Counter

from broker import BrokerError, Message
from ingest import answers
from ingest.admission import Admitted, admit
from ingest.config import IngestConfig
from ingest.key_ring import KeyRing
from ingest.publisher import Publisher
from ingest.refusal_log import RefusalLog
from ingest.refusals import Refusal, RefusedError
from ingest.requests import check_headers, read_body
from ingest.room import Room
from ingest.tracing import traceparent
from schemas import EVENT_TYPES, UNRECOGNIZED, Unrecognized
from telemetry import metrics

#: How long the transport has to say that a callback is durable.
PUBLISH_TIMEOUT_S = 2.5

#: A larger body is looked at in a thread: 1 MiB made for the purpose takes some tenths of a second.
LARGE_BODY_BYTES = 64 * 1024

#: How long that may take, the wait for a thread included: the answer to a flood of such bodies must leave in time, too.
ADMISSION_TIMEOUT_S = 1.0

_NOT_KEPT = frozenset({Refusal.NO_ROOM, Refusal.NOT_CONFIRMED, Refusal.BROKEN})


class Callbacks:
    """Answers requests: authenticates, publishes, and says 200 only then. Each answer leaves within 6 s.

    `running` counts the requests that are not answered yet; `idle` is set while there are none.
    """

    def __init__(self, config: IngestConfig, transport: Publisher, keys: KeyRing) -> None:
        self._config = config
        self._transport = transport
        self._keys = keys
        self._refusals = RefusalLog()
        self._log = structlog.get_logger().bind()
        self.room = Room(config.max_in_flight_bytes)
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        for routing_key in (*EVENT_TYPES, UNRECOGNIZED):
            metrics.CALLBACKS_ACCEPTED.labels(routing_key=routing_key)
        for refusal in Refusal:
            _counter(refusal)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Return the answer to `request`. Nothing that a request contains makes this raise."""
        began_s = time.monotonic()
        self.running += 1
        self.idle.clear()
        try:
            await self._keep(request)
            return answers.kept()
        except RefusedError as error:
            return self.refuse(error.refusal, sdk_app_id=error.sdk_app_id)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()
            metrics.ANSWER_SECONDS.observe(time.monotonic() - began_s)

    def refuse(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> web.Response:
        """Count and log a refusal; return its answer."""
        _counter(refusal).inc()
        self._refusals.note(refusal, sdk_app_id=sdk_app_id)
        return answers.refused(refusal)

    def close(self) -> None:
        """Write what the log of refusals holds back."""
        self._refusals.close()

    async def _keep(self, request: web.BaseRequest) -> None:
        received_at_us = time.time_ns() // 1000
        check_headers(request, self._config)
        with self.room.share() as share:
            body = await read_body(request, share, max_bytes=self._config.max_body_bytes)
            admitted = await self._admit(body, received_at_us)
            event = admitted.decoded.event
            message = Message(
                body=admitted.body,
                event_id=admitted.decoded.event_id,
                routing_key=UNRECOGNIZED if isinstance(event, Unrecognized) else type(event).__name__,
                received_at_us=received_at_us,
                trace=traceparent(request.headers.get("traceparent")),
            )
            await self._publish(message, admitted.sdk_app_id)
        metrics.CALLBACKS_ACCEPTED.labels(routing_key=message.routing_key).inc()
        self._log.debug(
            "callback_accepted", event_id=message.event_id, routing_key=message.routing_key, trace=message.trace
        )

    async def _admit(self, body: bytes, received_at_us: int) -> Admitted:
        keys, allow_unsigned = self._keys.current, self._config.allow_unsigned
        if len(body) <= LARGE_BODY_BYTES:
            return admit(body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us)
        try:
            async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                return await asyncio.to_thread(
                    admit, body, keys=keys, allow_unsigned=allow_unsigned, received_at_us=received_at_us
                )
        except TimeoutError:
            raise RefusedError(Refusal.NO_ROOM) from None

    async def _publish(self, message: Message, sdk_app_id: int) -> None:
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                with metrics.PUBLISH_SECONDS.time():
                    await self._transport.publish(message)
        except (BrokerError, TimeoutError):
            raise RefusedError(Refusal.NOT_CONFIRMED, sdk_app_id=sdk_app_id) from None


def _counter(refusal: Refusal) -> Counter:
    if refusal in _NOT_KEPT:
        return metrics.CALLBACKS_NOT_KEPT.labels(reason=refusal.label)
    return metrics.CALLBACKS_REFUSED.labels(reason=refusal.label)
