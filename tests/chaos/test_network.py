"""Hosts of the private network hear each other, unless they are not to."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chaos.faults.network import Network, cannot_network

pytestmark = pytest.mark.skipif(cannot_network() is not None, reason=str(cannot_network()))

PORT = 5000
ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.bind(("0.0.0.0", 5000))
    print("ready", flush=True)
    while True:
        data, sender = end.recvfrom(100)
        end.sendto(data, sender)
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.settimeout(0.3)
    end.sendto(b"hello", (sys.argv[1], 5000))
    sys.exit(end.recv(100) != b"hello")
"""


@pytest.fixture(scope="module")
def built() -> Iterator[Network]:
    """Make a network whose host 1 answers what it hears."""
    with Network(3) as network:
        command = [*network.prefix(1), sys.executable, "-c", ECHO]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as echo:
            assert echo.stdout is not None
            assert echo.stdout.readline() == b"ready\n"
            yield network
            echo.kill()


@pytest.fixture
def network(built: Network) -> Iterator[Network]:
    yield built
    built.heal()


def hears(network: Network, host: int) -> bool:
    """Say whether a host gets an answer from host 1."""
    command = [*network.prefix(host), sys.executable, "-c", ASK, network.address(1)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def hears_here(network: Network) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(0.3)
        end.sendto(b"hello", (network.address(1), PORT))
        try:
            return end.recv(100) == b"hello"
        except TimeoutError:
            return False


def test_parted_hosts_hear_nothing_of_each_other_until_they_are_healed(network: Network) -> None:
    network.part((0,), (1, 2))
    assert not hears(network, 0)
    assert hears(network, 2)
    assert hears_here(network)
    network.heal()
    assert hears(network, 0)


def test_a_hidden_host_is_hidden_from_here_alone(network: Network) -> None:
    network.hide(1)
    assert not hears_here(network)
    assert hears(network, 0)


def test_a_network_leaves_nothing_behind() -> None:
    def listed(*command: str) -> str:
        return subprocess.run(["ip", *command], capture_output=True, text=True, check=True).stdout  # noqa: S607 - found before

    with Network(1) as network:
        name = network.prefix(0)[3].removesuffix("-0")
        assert name in listed("-o", "link")
    assert name not in listed("-o", "link")
    assert name not in listed("netns")
