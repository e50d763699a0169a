"""A private network of a few hosts on this machine: network namespaces at one bridge, reached from here alone."""

import os
import secrets
import shutil
import subprocess
from functools import cache
from typing import Self

from chaos.errors import ChaosError

#: For measurements, in no network of anybody's: https://www.rfc-editor.org/rfc/rfc2544#appendix-C.2.2
_PREFIX = "198.18"

#: The last address of the network is this side's: clients come from there.
_HERE = 254


@cache
def cannot_network() -> str | None:
    """Return why this machine can have no such network, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "nft") if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    # Root in a container may not: only trying tells.
    try:
        with Network(1):
            return None
    except ChaosError as error:
        return f"this root may make no network: {error}"


class Network:
    """`hosts` hosts, each with an address and whatever is started there with its prefix. A context manager.

    Hosts are counted from 0. Between any two of them packets can be dropped, one way or both, and between a host and
    this side. Nothing is routed to anywhere else. Raises `ChaosError` if the network cannot be made.
    """

    def __init__(self, hosts: int) -> None:
        self._name = f"tiw-{secrets.token_hex(3)}"
        self._subnet = f"{_PREFIX}.{secrets.randbelow(256)}"
        self._hosts = hosts

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        # An interface takes its other end along, and a namespace its interfaces.
        _try("ip", "link", "delete", self._name)
        for name in (self._hub, *map(self._namespace, range(self._hosts))):
            _try("ip", "netns", "delete", name)

    @property
    def here(self) -> str:
        """The address of this side, as the hosts see it."""
        return f"{self._subnet}.{_HERE}"

    def address(self, host: int) -> str:
        """Return the address of a host."""
        return f"{self._subnet}.{host + 1}"

    def prefix(self, host: int) -> tuple[str, ...]:
        """Return what a command begins with that is to run on a host."""
        return ("ip", "netns", "exec", self._namespace(host))

    def deafen(self, host: int, *others: int) -> None:
        """Let a host hear nothing of others any more; they hear what it says."""
        self._drop(host, *map(self.address, others))

    def part(self, some: tuple[int, ...], others: tuple[int, ...]) -> None:
        """Let two groups of hosts hear nothing of each other."""
        for host in some:
            self.deafen(host, *others)
        for host in others:
            self.deafen(host, *some)

    def hide(self, host: int) -> None:
        """Let a host hear nothing of this side: of its clients."""
        self._drop(host, self.here)

    def heal(self) -> None:
        """Let everybody hear everybody."""
        for host in range(self._hosts):
            self._nft(host, "flush", "chain", "inet", "chaos", "heard")

    def _build(self) -> None:
        _run("ip", "netns", "add", self._hub)
        self._in_hub("link", "add", "bridge", "type", "bridge")
        self._in_hub("link", "set", "bridge", "up")
        _run("ip", "link", "add", self._name, "type", "veth", "peer", "name", "here", "netns", self._hub)
        _run("ip", "address", "add", f"{self.here}/24", "dev", self._name)
        _run("ip", "link", "set", self._name, "up")
        self._plug_in("here")
        for host in range(self._hosts):
            self._build_host(host)

    def _build_host(self, host: int) -> None:
        namespace, plug = self._namespace(host), f"host{host}"
        _run("ip", "netns", "add", namespace)
        self._in_hub("link", "add", plug, "type", "veth", "peer", "name", "net", "netns", namespace)
        self._plug_in(plug)
        on_host = ("ip", "-n", namespace)
        _run(*on_host, "address", "add", f"{self.address(host)}/24", "dev", "net")
        _run(*on_host, "link", "set", "net", "up")
        _run(*on_host, "link", "set", "lo", "up")
        self._nft(host, "add", "table", "inet", "chaos")
        self._nft(host, "add", "chain", "inet", "chaos", "heard", "{ type filter hook input priority 0; }")

    def _plug_in(self, plug: str) -> None:
        self._in_hub("link", "set", plug, "master", "bridge", "up")

    def _drop(self, host: int, *sources: str) -> None:
        for source in sources:
            self._nft(host, "add", "rule", "inet", "chaos", "heard", "ip", "saddr", source, "drop")

    def _nft(self, host: int, *arguments: str) -> None:
        _run(*self.prefix(host), "nft", *arguments)

    def _in_hub(self, *arguments: str) -> None:
        _run("ip", "-n", self._hub, *arguments)

    @property
    def _hub(self) -> str:
        return f"{self._name}-hub"

    def _namespace(self, host: int) -> str:
        return f"{self._name}-{host}"


def _run(*command: str) -> None:
    done = _try(*command)
    if done.returncode:
        raise ChaosError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
