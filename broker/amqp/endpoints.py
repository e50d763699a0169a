"""Addresses of brokers, checked before anything is sent to them, and the order in which they are tried.

A resolver that hangs holds its thread for as long as it likes. The event loop's own look-up takes a thread of the pool
that files and databases share: a few that hang leave none to them, and a process that ends waits for all.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import TypeAlias

import structlog
from msgspec import Struct
from yarl import URL

from broker.api import BrokerError

#: How long a look-up may take before addresses that an earlier one found are used instead.
PATIENCE_S = 1.0

_Found: TypeAlias = tuple[str, ...] | OSError

_log = structlog.get_logger()


class Resolver:
    """Looks hosts up for one event loop: one look-up at a time for each host, however often it is asked for."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[_Found]] = {}
        self._known: dict[str, tuple[str, ...]] = {}

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the numeric addresses of `host`, best first.

        A look-up that fails or takes long is answered from an earlier one, if there was one. Otherwise it raises
        OSError, or lasts as long as the resolver hangs: bound it.
        """
        if _is_address(host):
            return (host,)
        looking_up = self._running.get(host) or self._begin(host)
        known = self._known.get(host)
        await asyncio.wait((looking_up,), timeout=None if known is None else PATIENCE_S)
        found = looking_up.result() if looking_up.done() else TimeoutError("the look-up takes too long")
        if not isinstance(found, OSError):
            return found
        if known is None:
            raise found
        _log.warning("broker_name_not_resolved", host=host, error=str(found), using="the addresses known before")
        return known

    def _begin(self, host: str) -> "asyncio.Future[_Found]":
        loop = asyncio.get_running_loop()
        looking_up: asyncio.Future[_Found] = loop.create_future()
        self._running[host] = looking_up

        def end(found: _Found) -> None:
            del self._running[host]
            if not isinstance(found, OSError):
                self._known[host] = found
            looking_up.set_result(found)

        def look_up() -> None:
            found = _look_up(host)
            # The loop may have ended meanwhile: then nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end, found)

        threading.Thread(target=look_up, name=f"tiw-resolve-{host}", daemon=True).start()
        return looking_up


def _look_up(host: str) -> _Found:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error if isinstance(error, OSError) else OSError(f"{host} is no name of a host")
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


#: In seconds. The broker says something every half of it, and closes a connection that is silent for twice as long: a
#: consumer that blocks its event loop has that much time. This side notices earlier, see `broker.amqp.connection`.
HEARTBEAT_S = 10


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a broker listens. `url` has credentials and is for the library alone; `name` is for people."""

    url: URL
    name: str


class Brokers:
    """The brokers of one cluster, shared by all connections of a transport.

    They are tried in the order in which they are named, beginning with the one that worked last. So the first is used
    until it fails, and whoever takes its place until that fails, too: nothing moves back by itself.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = tuple(endpoints)
        self._first = 0
        self.resolver = Resolver()

    def in_turn(self) -> tuple[Endpoint, ...]:
        """Return all of them in the order in which to try them now."""
        return self._endpoints[self._first :] + self._endpoints[: self._first]

    def note_working(self, endpoint: Endpoint) -> None:
        """Begin with `endpoint` from now on."""
        self._first = self._endpoints.index(endpoint)


def parse_endpoints(urls: Sequence[str]) -> tuple[Endpoint, ...]:
    """Check addresses of brokers. Raises `BrokerError`, without the address, which may hold a password."""
    if not urls:
        raise BrokerError("no broker is named: give at least one address, amqp://USER:PASSWORD@HOST:PORT/VHOST")
    return tuple(_parse(position, url) for position, url in enumerate(urls, start=1))


def _parse(position: int, text: str) -> Endpoint:
    try:
        url = URL(text.strip())
        usual_port = {"amqp": 5672, "amqps": 5671}[url.scheme]
        host, port = url.host, url.port or usual_port
    except (ValueError, KeyError):
        host, port = None, 0
    if not host:
        raise BrokerError(
            f"address {position} of the broker is not like amqp://USER:PASSWORD@HOST:PORT/VHOST"
        ) from None
    if url.user in (None, "", "guest") and not _is_loopback(host):
        raise BrokerError(
            f"refusing to be guest on {host}: its password is public; make a user (rabbitmqctl add_user) and name it"
        )
    if "heartbeat" not in url.query:
        url = url.update_query(heartbeat=HEARTBEAT_S)
    return Endpoint(url=url.with_port(port), name=f"{host}:{port}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
