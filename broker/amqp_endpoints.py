"""Addresses of brokers, checked before anything is sent to them, and the order in which they are tried."""

import ipaddress
from collections.abc import Sequence

from msgspec import Struct
from yarl import URL

from broker.amqp_resolving import Resolver
from broker.errors import BrokerError

#: In seconds. The broker says something every half of it, and closes a connection that is silent for twice as long: a
#: consumer that blocks its event loop has that much time. This side notices earlier, see `broker.amqp_pulse`.
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
