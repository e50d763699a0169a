"""Where files may be fetched from: which hosts and ports an address may name, and which IP addresses may be reached.

Whoever can forge a callback chooses an address that this process connects to. So what an address says is checked, and
so is every IP address at the moment of its connection: a name may lead anywhere, and elsewhere the next time.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from aiohttp import TCPConnector, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
#: As sockets have it: family, type, protocol, canonical name, address.
_AddressInfo: TypeAlias = tuple[
    int | socket.AddressFamily,
    int | socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int],
]

MAX_URL_CHARACTERS: Final = 4096
_MAX_HOST_CHARACTERS: Final = 253
_MAX_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)", re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
#: What some programs take for an IPv4 address: https://url.spec.whatwg.org/#ends-in-a-number-checker
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class FetchError(Exception):
    """A file was not fetched. `reason` is a sentence for people, with nothing of an address but its host.

    `again_after_s` is how long the server asks to be left alone; None: it did not say.
    """

    def __init__(self, reason: str, *, again_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again_after_s = again_after_s


class ForbiddenAddressError(FetchError):
    """Nothing may be fetched from this address. Asking again does not help until the address or the rules change."""


class HostRule(Struct, frozen=True, kw_only=True):
    """Hosts that may be fetched from: one, or with a leading dot all below a name.

    `port` is the only one allowed; None: that of the scheme, 80 or 443.
    """

    name: str
    port: int | None = None

    def matches(self, host: str) -> bool:
        """Say whether a host, in lower case and without a trailing dot, is one of these."""
        return host.endswith(self.name) and host != self.name if self.name[0] == "." else host == self.name


class AddressRules(Struct, frozen=True, kw_only=True):
    """What an address may be. `networks` are reached although they are private, as COS is from inside Tencent Cloud."""

    hosts: tuple[HostRule, ...]
    networks: tuple[IPNetwork, ...] = ()


#: Where the vendor keeps files: https://cloud.tencent.com/document/product/436/6224
DEFAULT_HOSTS: Final = tuple(HostRule(name=name) for name in (".myqcloud.com", ".tencentcos.cn", ".tencentcos.com"))

#: Machines' own secrets are told here. No network that somebody allows includes them.
_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.0.23",  # https://cloud.tencent.com/document/product/213/4934
            "169.254.169.254",
            "169.254.170.2",  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
            "169.254.170.23",  # https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
            "fd00:ec2::23",
            "fd00:ec2::254",
            "fd20:ce::254",  # https://cloud.google.com/compute/docs/metadata/querying-metadata
            "100.100.100.200",  # https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
            "168.63.129.16",  # https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
            "192.0.0.192",  # https://docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm
        ),
    )
)

#: https://www.iana.org/assignments/iana-ipv4-special-registry and multicast. Not `is_global`, which changes with Python
#: and takes multicast and addresses that wrap another for public.
_SPECIAL_IPV4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "a private address of a carrier"),
        ("127.0.0.0/8", "an address of this machine"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a reserved address"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)

#: https://www.iana.org/assignments/iana-ipv6-special-registry; what is not in 2000::/3 is no public address at all.
_SPECIAL_IPV6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "an unspecified address"),
        ("::1/128", "an address of this machine"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
        ("2001::/23", "a reserved address"),
        ("2001:db8::/32", "an address for documentation"),
        ("2002::/16", "an address of a tunnel (6to4)"),
        ("3fff::/20", "an address for documentation"),
    )
)
_RESERVED: Final = "a reserved address"
_SECRETS: Final = "an address that tells a machine's secrets"
_PUBLIC_IPV6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
#: https://datatracker.ietf.org/doc/html/rfc8215: NAT64 of one's own; the IPv4 address is in the last 32 bits of a /96.
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE: Final = IPv6Network("::/96")
#: https://datatracker.ietf.org/doc/html/rfc5214#section-6.1: ISATAP, by its 32 bits before the IPv4 address.
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)


def parse_hosts(text: str) -> tuple[HostRule, ...]:
    """Read hosts, separated by commas or white space: `NAME`, `.SUFFIX` or `*.SUFFIX`, each with `:PORT` or without.

    Raises ValueError with a sentence for the user.
    """
    return tuple(_host_rule(word) for word in re.split(r"[\s,]+", text.strip()) if word)


def _host_rule(word: str) -> HostRule:
    match = re.fullmatch(r"(?P<dot>\*?\.)?(?P<host>\[[^\]]*\]|[^:\[\]/@]+)(?::(?P<port>[0-9]{1,5}))?", word)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or port == 0 or (port or 0) > _MAX_PORT:
        raise ValueError(f"{word!r} is no host: write files.example.com, .example.com or files.example.com:8080")
    try:
        host = _checked_host(_parsed(f"http://{match['host']}/").raw_host or "", is_bracketed="[" in word)
        is_literal = _literal(host) is not None
    except ForbiddenAddressError as error:
        raise ValueError(f"{word!r} is no host: {error.reason}") from None
    if match["dot"] and is_literal:
        raise ValueError(f"{word!r} is no host: nothing is below an IP address")
    return HostRule(name=f".{host}" if match["dot"] else host, port=port)


def parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """Read networks as CIDRs, separated by commas or white space. Raises ValueError with a sentence for the user."""
    networks = []
    for word in re.split(r"[\s,]+", text.strip()):
        if not word:
            continue
        try:
            networks.append(ip_network(word))
        except ValueError:
            raise ValueError(f"{word!r} is no network: write it as 10.0.0.0/8 or fd00::/8") from None
    return tuple(networks)


def check_url(url: str, rules: AddressRules, *, is_vendors: bool) -> URL:
    """Return an address as it may be asked for: its host in ASCII, path and query as they were, no fragment.

    `is_vendors`: the vendor's API named it, so any host and port will do, but for forbidden IP addresses. Raises
    ForbiddenAddressError, whose reason holds nothing of the address but its host.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ForbiddenAddressError("the address is too long")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ForbiddenAddressError("the address holds characters that no address may hold")
    match = _URL.match(url)
    if match is None:
        raise ForbiddenAddressError("the address does not begin with http:// or https:// and a host")
    authority = match["authority"]
    if "@" in authority:
        raise ForbiddenAddressError("the address holds a user or a password")
    parsed = _parsed(url)
    host = _checked_host(parsed.raw_host or "", is_bracketed="[" in authority)
    if (colon := authority.find(":", authority.rfind("]") + 1)) >= 0 and not _PORT.fullmatch(authority[colon:]):
        raise ForbiddenAddressError(f"the port of {host} is no port")
    port = parsed.port
    if not port:
        raise ForbiddenAddressError(f"the port of {host} is no port")
    literal = _literal(host)
    if literal is not None and (reason := is_forbidden_ip(literal, rules.networks)) is not None:
        raise ForbiddenAddressError(_refusal(host, reason))
    if not is_vendors:
        _check_rules(rules.hosts, host, port, parsed.scheme)
    # What is signed must arrive as it was signed: https://docs.aiohttp.org/en/stable/client_quickstart.html, "requote".
    exact = URL(url, encoded=True) if url.isascii() else parsed
    return URL.build(
        scheme=parsed.scheme,
        host=f"[{host}]" if ":" in host else host,
        port=None if port == _DEFAULT_PORTS[parsed.scheme] else port,
        path=exact.raw_path or "/",
        query_string=exact.raw_query_string,
        encoded=True,
    )


def _parsed(url: str) -> URL:
    try:
        return URL(url)
    except ValueError:
        # Its text holds the address.
        raise ForbiddenAddressError("the address cannot be read") from None


def _checked_host(host: str, *, is_bracketed: bool) -> str:
    """Return a host in lower case, without a dot at the end; an IPv6 address, in brackets, as it is."""
    host = host.lower()
    if is_bracketed and ":" in host:
        return host
    host = host.removesuffix(".")
    if is_bracketed or len(host) > _MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, host.split("."))):
        raise ForbiddenAddressError("the host of the address is no name")
    return host


def _literal(host: str) -> IPAddress | None:
    """Return the IP address that a host is, None if it is a name."""
    if ":" not in host and not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        # Not with a zone, which is nobody's but this machine's.
        return ip_address(host if "%" not in host else "")
    except ValueError:
        raise ForbiddenAddressError("the host of the address is an IP address in an odd form") from None


def _check_rules(hosts: Sequence[HostRule], host: str, port: int, scheme: str) -> None:
    matching = [rule for rule in hosts if rule.matches(host)]
    if not matching:
        raise ForbiddenAddressError(f"{host} is not among the hosts of TIW_ARCHIVE_HOSTS")
    if not any(port == (_DEFAULT_PORTS[scheme] if rule.port is None else rule.port) for rule in matching):
        raise ForbiddenAddressError(f"{host} is among the hosts of TIW_ARCHIVE_HOSTS, but not with port {port}")


def is_forbidden_ip(ip: IPAddress, networks: Sequence[IPNetwork]) -> str | None:
    """Return what is wrong with connecting to an IP address, in a few words; None if it is public or in `networks`.

    An IPv6 address that wraps an IPv4 address must be good as what it wraps. Where metadata are told is always wrong.
    """
    wrapped = list(_wrapped(ip)) if isinstance(ip, IPv6Address) else []
    if not _METADATA.isdisjoint([_plain(ip), *wrapped]):
        return _SECRETS
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        # It is connected to over IPv4, whatever is allowed of IPv6.
        return is_forbidden_ip(ip.ipv4_mapped, networks)
    if any(ip in network for network in networks):
        return None
    for inner in wrapped:
        if (reason := is_forbidden_ip(inner, networks)) is not None:
            return f"{reason}, wrapped in IPv6"
    return _special(ip)


def _special(ip: IPAddress) -> str | None:
    """Return what an address is, None if it is a public one."""
    if isinstance(ip, IPv4Address):
        return next((reason for network, reason in _SPECIAL_IPV4 if ip in network), None)
    is_public = ip in _PUBLIC_IPV6 or ip in _NAT64
    return next((reason for network, reason in _SPECIAL_IPV6 if ip in network), None if is_public else _RESERVED)


def _plain(ip: IPAddress) -> IPAddress:
    """Return an address without its zone, with which it would equal no other."""
    return IPv6Address(int(ip)) if isinstance(ip, IPv6Address) else ip


def _wrapped(ip: IPv6Address) -> Iterator[IPv4Address]:
    """Yield every IPv4 address that a packet to an IPv6 address may reach."""
    last = IPv4Address(int(ip) & 0xFFFF_FFFF)
    is_compatible = ip in _COMPATIBLE and int(ip) > 1
    if is_compatible or ip.ipv4_mapped or ip in _NAT64 or ip in _LOCAL_NAT64 or int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield last
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo


class CheckedConnector(TCPConnector):
    """Connects to no IP address that the rules forbid, whatever led there: a name, a literal, a redirect.

    Each connection looks its name up anew. Forbidden addresses of a name are left out; a name that has no others, and
    a literal, raise ForbiddenAddressError.
    """

    def __init__(self, networks: Sequence[IPNetwork], *, resolver: AbstractResolver | None = None) -> None:
        self._networks = tuple(networks)
        # A connection that is used again would be none that was checked for its request.
        super().__init__(
            resolver=_CheckedResolver(resolver or ThreadedResolver(), self._networks),
            use_dns_cache=False,
            force_close=True,
            limit=0,
            socket_factory=self._make_socket,
        )

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        # Whoever hands in a resolver closes it: https://docs.aiohttp.org/en/stable/client_reference.html#tcpconnector
        await self._resolver.close()

    def _make_socket(self, info: _AddressInfo) -> socket.socket:
        """Make the socket that is connected to the very address of `info` next, if that may be.

        This is the check that counts. aiohttp asks no resolver about an IP address.
        """
        family, kind, protocol, _, address = info
        _check_ip(str(address[0]), self._networks)
        return socket.socket(family, kind, protocol)


class _CheckedResolver(AbstractResolver):
    def __init__(self, resolver: AbstractResolver, networks: Sequence[IPNetwork]) -> None:
        self._resolver = resolver
        self._networks = networks

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        allowed: list[ResolveResult] = []
        refusal: ForbiddenAddressError | None = None
        for result in await self._resolver.resolve(host, port, family):
            try:
                _check_ip(result["host"], self._networks)
            except ForbiddenAddressError as error:
                refusal = error
            else:
                allowed.append(result)
        if not allowed and refusal is not None:
            raise ForbiddenAddressError(f"{host} leads nowhere else: {refusal.reason}")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _check_ip(text: str, networks: Sequence[IPNetwork]) -> None:
    try:
        reason = is_forbidden_ip(ip_address(text), networks)
    except ValueError:
        raise ForbiddenAddressError(f"{text} is no IP address") from None
    if reason is not None:
        raise ForbiddenAddressError(_refusal(text, reason))


def _refusal(host: str, reason: str) -> str:
    """Return a sentence that also says what would allow the address, if anything does."""
    return f"{host} is {reason}" + ("" if reason == _SECRETS else ", and TIW_ARCHIVE_NETWORKS does not allow it")
