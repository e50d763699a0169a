"""The HTTP server around `Callbacks`: its socket, its limits, and its end."""

import asyncio
import inspect
import os
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import structlog
from aiohttp import web

from ingest.callbacks import Callbacks
from ingest.config import IngestConfig, LivePublisher
from ingest.connections import FIRST_REQUEST_S, Connections, ProxyProtocolError, connection_limit
from ingest.durability import Durability
from ingest.keys import KeyRing
from ingest.plain import Heads, PlainConnections
from ingest.refusals import Refusal
from ingest.rejected import RejectedWriter
from ingest.request import require_safe_http
from ingest.spool import NoSpool, Spool
from ingest.unix_socket import BACKLOG, UnixSocket
from schemas import EARLIEST_ARRIVAL_S
from telemetry import Readiness, Throttle, metrics

#: A drain waits this long for requests in flight; each of them is answered within 8 s.
DRAIN_TIMEOUT_S = 8.0

#: Then connections have this long, twice, to end by themselves.
CLOSE_TIMEOUT_S = 0.75

#: How often the metrics of callbacks are brought up to date.
FLUSH_INTERVAL_S = 0.25

#: The same while nobody connects or asks, and there is no broker whose absence has to be noticed meanwhile.
IDLE_FLUSH_INTERVAL_S = 5.0

#: How often a load balancer is told of that sends the PROXY protocol: it may do so with every health check.
_PROXY_TOLD_EVERY_S = 3600.0

_PROXY_REMEDY = (
    "turn it off in the load balancer (haproxy: send-proxy, check-send-proxy; nginx: proxy_protocol; "
    "Tencent CLB, AWS NLB: proxy protocol): it is not read here, and requests behind it are answered 400"
)

#: What was accepted just before needs a few turns of the loop to be counted as in flight.
_TURN_S = 0.02

_log = structlog.get_logger()


class IngestServer:
    """Serves `POST /callbacks/tiw` while it is entered, whether the broker is there or not.

    `port` tells the port once it is entered; 0 on a unix socket. Entering raises OSError if the address cannot be had,
    and `UnsafeHTTPError` if aiohttp is too old or lacks its C parser. Leaving drains. The transport, the keys and the
    spool, which keeps what the transport does not confirm, are entered and left by the caller.
    """

    def __init__(
        self, config: IngestConfig, transport: LivePublisher, keys: KeyRing, *, spool: Spool | None = None
    ) -> None:
        self._config = config
        self._durability = Durability(
            transport,
            NoSpool() if spool is None else spool,
            budget=config.budget,
            max_unconfirmed=config.max_unconfirmed,
        )
        self._has_spool = spool is not None
        self._rejected = None if config.rejected_folder is None else RejectedWriter(config.rejected_folder)
        self._callbacks = Callbacks(config, self._durability, keys, rejected=self._rejected)
        self._unix_socket = (
            None if config.unix_socket is None or config.inherited is not None else UnixSocket(config.unix_socket)
        )
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None
        self._protocols: PlainConnections | None = None
        self._is_draining = False
        self._flushing: asyncio.Task[None] | None = None
        self._proxy_throttle = Throttle(_PROXY_TOLD_EVERY_S)
        self.port = config.port

    async def __aenter__(self) -> Self:
        require_safe_http()
        limit = connection_limit(self._config.max_connections)
        self._connections = Connections(
            self._callbacks.answer, on_error=self._on_error, limit=limit, on_change=self._callbacks.were_busy.set
        )
        self._protocols = PlainConnections(self._connections, self._callbacks, Heads(path=self._config.path))
        self._listener = await self._listen(self._protocols)
        if self._rejected is not None:
            await self._rejected.__aenter__()
        self._flushing = asyncio.create_task(self._flush_metrics(), name="metrics of callbacks")
        now_s = time.time()
        if now_s < EARLIEST_ARRIVAL_S:
            _log.error(
                "clock_wrong",
                now=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s)),
                advice="let NTP set it: callbacks are kept with a wrong time of arrival, and none is found expired",
            )
        _log.info("ingest_started", **self._place, max_connections=limit)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Stop accepting, finish what is in flight, close. May be called again.

        Returns within 10 s and the delay of the configuration, in which load balancers learn of it and go elsewhere.
        """
        if self._is_draining or self._listener is None or self._connections is None or self._protocols is None:
            return
        self._is_draining = True
        self._callbacks.answers.closing = True
        await asyncio.sleep(self._config.stop_delay_s)
        if self._unix_socket is not None:
            self._unix_socket.remove()
        await self._stop_listening(self._listener, self._protocols)
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await asyncio.sleep(_TURN_S)
                await self._await_requests(self._connections)
                await self._callbacks.idle.wait()
        except TimeoutError:
            _log.warning("drain_timed_out", requests_in_flight=self._callbacks.running)
        self._connections.pre_shutdown()
        await self._connections.finish(CLOSE_TIMEOUT_S)
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait({self._flushing})
        if self._rejected is not None:
            await self._rejected.__aexit__(None, None, None)
        self._callbacks.close()
        if self._unix_socket is not None:
            self._unix_socket.close()
        _log.info("ingest_stopped", **self._place)

    def ready(self) -> Readiness:
        """Say whether a callback could be kept now, and if not, why."""
        not_listening = () if self._listener is not None else ("it does not listen yet",)
        return Readiness(not_ready=(*not_listening, *self._callbacks.not_ready()))

    async def _listen(self, protocols: PlainConnections) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        config = self._config
        if config.unix_socket is None:
            # Those of a flood must not push real ones out.
            listener = await loop.create_server(
                protocols, config.host, config.port, backlog=BACKLOG, reuse_port=config.reuse_port or None
            )
            self.port = listener.sockets[0].getsockname()[1]
            return listener
        if self._unix_socket is not None:
            listening = self._unix_socket.__enter__().socket
        else:
            listening = socket.socket(fileno=config.inherited)
            listening.set_inheritable(False)
        self.port = 0
        # From Python 3.13 on a server removes the file when it closes: here that may be one of several that share it.
        parameters = inspect.signature(loop.create_unix_server).parameters
        keep: dict[str, Any] = {"cleanup_socket": False} if "cleanup_socket" in parameters else {}
        return await loop.create_unix_server(protocols, sock=listening, backlog=BACKLOG, **keep)

    @staticmethod
    async def _stop_listening(listener: asyncio.Server, protocols: PlainConnections) -> None:
        """Close the listener, but accept who has connected before: the system would hang up on those who wait."""
        loop = asyncio.get_running_loop()
        queues: list[socket.socket] = []
        for listening in listener.sockets:
            with suppress(OSError):  # no descriptor is left
                queues.append(socket.socket(fileno=os.dup(listening.fileno())))
            # asyncio's own loop drops what it has accepted in the turn before; uvloop has no reader there.
            loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
        listener.close()
        accepted: list[socket.socket] = []
        for queue in queues:
            queue.setblocking(False)
            with queue, suppress(OSError):  # none waits any more
                while len(accepted) < BACKLOG:
                    accepted.append(queue.accept()[0])
        for connection in accepted:
            connection.setblocking(False)
            with suppress(OSError):  # gone already
                await loop.connect_accepted_socket(protocols, connection)

    @staticmethod
    async def _await_requests(connections: Connections) -> None:
        """Give those who have just connected the time to send: a load balancer does not repeat what is cut off here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_REQUEST_S):
                while connections.is_expecting:  # noqa: ASYNC110 - who connects and sends tells nobody of it
                    await asyncio.sleep(_TURN_S)

    @property
    def _place(self) -> dict[str, object]:
        if self._config.unix_socket is not None:
            return {"socket": str(self._config.unix_socket)}
        return {"host": self._config.host, "port": self.port}

    async def _flush_metrics(self) -> None:
        while True:
            if not self._callbacks.running:
                self._callbacks.were_busy.clear()
            self._callbacks.flush()
            self._durability.flush()
            if self._connections is not None:
                metrics.CONNECTIONS.set(self._connections.count)
            if not self._has_spool:
                try:
                    async with asyncio.timeout(IDLE_FLUSH_INTERVAL_S):
                        await self._callbacks.were_busy.wait()
                except TimeoutError:
                    continue
            await asyncio.sleep(FLUSH_INTERVAL_S)

    def _on_error(self, status: int, error: BaseException | None) -> web.StreamResponse:
        if isinstance(error, ProxyProtocolError):
            # A mistake in a configuration, repeated by every probe: no refusals to be counted and alarmed at.
            if self._proxy_throttle.passes():
                _log.warning("proxy_protocol_refused", remedy=_PROXY_REMEDY)
            return self._callbacks.answers.refused(Refusal.MALFORMED_HTTP)
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._callbacks.refuse(Refusal.MALFORMED_HTTP)
        self._callbacks.note_defect(error)
        return self._callbacks.refuse(Refusal.BROKEN)
