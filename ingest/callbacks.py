"""One callback, from its request to its answer."""

import asyncio
import time

from aiohttp import web
from prometheus_client import Counter

from ingest.admission import Admitted, admit
from ingest.answers import Answers
from ingest.config import IngestConfig
from ingest.keeping import Keeper, NotKeptError
from ingest.key_ring import KeyRing
from ingest.messages import message_of
from ingest.pairs import Pairs
from ingest.refusal_log import RefusalLog
from ingest.refusals import Refusal, RefusedError
from ingest.rejected_keeper import RejectedKeeper
from ingest.requests import check_headers, read_body
from ingest.room import Room, Share
from ingest.tracing import traceparent
from schemas import EVENT_TYPES, UNRECOGNIZED
from telemetry import metrics

#: A larger body is looked at in a thread: 1 MiB made for the purpose takes some tenths of a second.
LARGE_BODY_BYTES = 64 * 1024

#: How long that may take, the wait for a thread included: the answer to a flood of such bodies must leave in time, too.
ADMISSION_TIMEOUT_S = 1.0

_NOT_KEPT = frozenset({Refusal.NO_ROOM, Refusal.NOT_CONFIRMED, Refusal.BROKEN})


class Callbacks:
    """Answers requests: authenticates, keeps, and says 200 only then. Each answer leaves within 8 s.

    `running` counts the requests that are not answered yet; `idle` is set while there are none.
    """

    def __init__(self, config: IngestConfig, keeper: Keeper, keys: KeyRing, *, rejected: RejectedKeeper | None) -> None:
        self._config = config
        self._path = config.path.encode()
        self._keeper = keeper
        self._keys = keys
        self._refusals = RefusalLog()
        self._rejected = rejected
        self._pairs = Pairs()
        self.answers = Answers()
        self.room = Room(limit=config.max_in_flight, limit_bytes=config.max_in_flight_bytes)
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        # All time series from the start, each looked up once.
        self._accepted = {
            key: metrics.CALLBACKS_ACCEPTED.labels(routing_key=key) for key in (*EVENT_TYPES, UNRECOGNIZED)
        }
        self._accepted_since_told = dict.fromkeys(self._accepted, 0)
        self._refused = {refusal: _counter(refusal) for refusal in Refusal}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer to `request`. Nothing that a request contains makes this raise."""
        began_s = time.monotonic()
        self.running += 1
        self.idle.clear()
        try:
            await self._keep(request, began_s)
            return self.answers.kept(request)
        except RefusedError as error:
            return self.refuse(error.refusal, sdk_app_id=error.sdk_app_id)
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()
            metrics.ANSWER_SECONDS.observe(time.monotonic() - began_s)

    def refuse(self, refusal: Refusal, *, sdk_app_id: int | None = None) -> web.StreamResponse:
        """Count and log a refusal; return its answer."""
        self._refused[refusal].inc()
        self._refusals.note(refusal, sdk_app_id=sdk_app_id)
        return self.answers.refused(refusal)

    def tell(self) -> None:
        """Bring the metrics up to date: for each callback it would cost as much as a look at its Sign."""
        for routing_key, count in self._accepted_since_told.items():
            self._accepted[routing_key].inc(count)
            self._accepted_since_told[routing_key] = 0
        metrics.CALLBACKS_PAIR_REUSED.labels(when="soon").inc(self._pairs.soon)
        metrics.CALLBACKS_PAIR_REUSED.labels(when="late").inc(self._pairs.late)
        self._pairs.soon = self._pairs.late = 0
        metrics.ANSWER_SECONDS.hand_over()
        metrics.PUBLISH_SECONDS.hand_over()
        metrics.CALLBACKS_IN_FLIGHT.set(self.room.taken)
        metrics.BYTES_IN_FLIGHT.set(self.room.taken_bytes)

    def close(self) -> None:
        """Write what the metrics and the log of refusals hold back."""
        self.tell()
        self._refusals.close()

    async def _keep(self, request: web.BaseRequest, began_s: float) -> None:
        received_at_us = time.time_ns() // 1000
        check_headers(request, path=self._path, max_body_bytes=self._config.max_body_bytes)
        with Share(self.room) as share:
            body = await read_body(request, share, max_bytes=self._config.max_body_bytes)
            try:
                if len(body) <= LARGE_BODY_BYTES:
                    admitted = self._admit(body, received_at_us)
                else:
                    admitted = await self._admit_in_thread(body, received_at_us)
            except RefusedError as error:
                if self._rejected is not None:
                    self._rejected.note(body, error.refusal, sdk_app_id=error.sdk_app_id, received_at_us=received_at_us)
                raise
            trace = traceparent(request.headers.get("traceparent"))
            message = message_of(admitted, received_at_us=received_at_us, trace=trace)
            if admitted.pair is not None:
                self._pairs.note(admitted.pair, message.event_id, received_at_us)
            try:
                # Half of the room for bodies is for those that can be in the spool in a moment.
                hurries = 2 * self.room.taken_bytes > self.room.limit_bytes
                await self._keeper.keep(message, began_s=began_s, hurries=hurries)
            except NotKeptError:
                raise RefusedError(Refusal.NOT_CONFIRMED, sdk_app_id=admitted.sdk_app_id) from None
        self._accepted_since_told[message.routing_key] += 1

    def _admit(self, body: bytes, received_at_us: int) -> Admitted:
        return admit(
            body,
            keys=self._keys.current,
            allow_unsigned=self._config.allow_unsigned,
            received_at_us=received_at_us,
        )

    async def _admit_in_thread(self, body: bytes, received_at_us: int) -> Admitted:
        try:
            async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                return await asyncio.to_thread(self._admit, body, received_at_us)
        except TimeoutError:
            raise RefusedError(Refusal.NO_ROOM) from None


def _counter(refusal: Refusal) -> Counter:
    if refusal in _NOT_KEPT:
        return metrics.CALLBACKS_NOT_KEPT.labels(reason=refusal.label)
    return metrics.CALLBACKS_REFUSED.labels(reason=refusal.label)
