"""One port for several processes of ours, and for nobody else."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tiw.listening import cannot_listen
from tiw.settings import Address


@contextmanager
def shared_port(address: Address, *, variable: str) -> Iterator[Address]:
    """Hold `address` while the block runs, for processes that listen there with SO_REUSEPORT; yield it with its port.

    The kernel hands connections to listening sockets alone, so this one, which is only bound, gets none. Raises
    `UsageError` that names `variable` if the address cannot be had: the children would try for ever.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            held = stack.enter_context(socket.socket(family, kind, protocol))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(place)
        except OSError as error:
            raise cannot_listen(error, variable=variable, address=address) from error
        yield Address(host=address.host, port=held.getsockname()[1])
