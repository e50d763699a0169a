"""A port is held for several processes of ours, and for nobody else."""

import socket

import pytest

from tiw.children import shared_port
from tiw.settings import Address, UsageError

ANY = Address(host="127.0.0.1", port=0)


def test_port_0_becomes_a_port_where_others_of_ours_can_listen() -> None:
    with shared_port(ANY, variable="TIW_HTTP") as address, socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        ours.bind((address.host, address.port))
        ours.listen()
        for _ in range(20):
            with socket.create_connection((address.host, address.port)), ours.accept()[0]:
                pass


def test_an_address_that_somebody_has_is_named_with_its_variable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"TIW_HTTP is {address}"), shared_port(address, variable="TIW_HTTP"):
            pass


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_here_is_named_too(host: str) -> None:
    address = Address(host=host, port=0)
    with pytest.raises(UsageError, match=f"TIW_HTTP is {host}:0"), shared_port(address, variable="TIW_HTTP"):
        pass
