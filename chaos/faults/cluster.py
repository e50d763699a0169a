"""A RabbitMQ cluster of three private nodes, each on a host of its own of a private network."""

import contextlib
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from chaos.errors import ChaosError
from chaos.faults.network import Network
from tests.servers.rabbitmq import Membership, RabbitMQServer

SIZE = 3

#: How long members may take to find each other again.
TOGETHER_S = 90.0

#: How long they are left alone before an operator does something.
_BY_ITSELF_S = 15.0

#: In seconds. A member that is silent for so long is taken for gone; the default of 60 is for slower networks:
#: https://www.rabbitmq.com/docs/nettick
NET_TICK_S = 6

_SETTINGS = {
    "cluster_partition_handling": "pause_minority",
    "cluster_formation.peer_discovery_backend": "classic_config",
    "net_ticktime": str(NET_TICK_S),
}
_TRIES = 3
_FOUNDERS = "cluster_formation.classic_config.nodes"

T = TypeVar("T")


class Cluster:
    """Three nodes and the network between them. A context manager: entering returns once all are one cluster.

    Hosts of `network` and `nodes` have the same numbers. Raises `ChaosError` if the nodes do not come together.
    """

    def __init__(self, scripts: Path) -> None:
        self._scripts = scripts
        self._stack = ExitStack()
        self.network = Network(SIZE)
        self.nodes: tuple[RabbitMQServer, ...] = ()

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.network)
            self._start_all()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def create_vhost(self) -> str:
        """Make a fresh virtual host and return its name. It is gone with the cluster."""
        for _ in range(_TRIES):
            # A cluster that has only just come together sometimes never answers the first request of this kind.
            with contextlib.suppress(TimeoutError):
                return self.nodes[0].create_vhost()
        raise ChaosError("the cluster makes no virtual host")

    def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with all that is in it, if a node answers; else it goes with the cluster."""
        with contextlib.suppress(ChaosError):
            self._any(lambda node: node.delete_vhost(vhost))

    def mend(self) -> None:
        """Undo whatever was done to nodes and network, and return once all is whole."""
        self.network.heal()
        for node in self.nodes:
            node.start()
            node.resume()
        self.unite()

    def leader(self, vhost: str, queue: str) -> int:
        """Return the number of the node that leads a quorum queue. Raises `ChaosError` if none does."""
        leader = self._queue(vhost, queue).get("leader")
        for number, node in enumerate(self.nodes):
            if leader == node.node:
                return number
        raise ChaosError(f"nobody leads {queue}")

    def members(self, vhost: str, queue: str) -> int:
        """Return how many nodes keep a copy of a quorum queue."""
        return len(self._queue(vhost, queue).get("members", ()))

    def is_whole(self) -> bool:
        """Say whether every node is reached from here and sees all others."""
        try:
            return all(_running(node) == {one.node for one in self.nodes} for node in self.nodes)
        except OSError:
            return False

    def unite(self) -> tuple[int, ...]:
        """Return once the cluster is whole: by itself, or because nodes that stay apart are started again.

        That is an operator's part. pause_minority does nothing about a node that was frozen: when it wakes up, it has
        lost the others and found them again in one moment, so it goes on without them:
        https://www.rabbitmq.com/docs/partitions#suspend. Returns the numbers of the nodes that were started again.
        Raises `ChaosError` if that does not help either.
        """
        if self._becomes_whole(_BY_ITSELF_S):
            return ()
        strays = self._strays()
        for number in strays:
            self.nodes[number].kill()
        # Together: one may wait for what only the other one knows.
        with ThreadPoolExecutor(SIZE) as pool:
            list(pool.map(RabbitMQServer.start, (self.nodes[number] for number in strays)))
        self._wait_whole()
        return strays

    def _wait_whole(self) -> None:
        if not self._becomes_whole(TOGETHER_S):
            raise ChaosError(f"the nodes were no cluster within {TOGETHER_S:g} s")

    def _becomes_whole(self, within_s: float) -> bool:
        deadline_s = time.monotonic() + within_s
        while not self.is_whole():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.2)
        return True

    def _strays(self) -> tuple[int, ...]:
        """Return who is not seen by a majority; if everybody is, everybody but the first."""
        seen: Counter[str] = Counter()
        for node in self.nodes:
            with contextlib.suppress(OSError):
                seen.update(_running(node))
        strays = tuple(number for number, node in enumerate(self.nodes) if seen[node.node] <= SIZE // 2)
        return strays or tuple(range(1, SIZE))

    def wipe(self, number: int) -> None:
        """Lose a member for good: it crashes, the others forget it, and what it had is gone."""
        lost = self.nodes[number]
        lost.kill()
        self._another(number).ctl("forget_cluster_node", lost.node)
        lost.lose_data()

    def replace(self, number: int) -> None:
        """Start a member that was wiped: it joins as a new one, and gets its copy of every quorum queue."""
        self.nodes[number].start()
        self._wait_whole()
        self._another(number).run("rabbitmq-queues", "grow", self.nodes[number].node, "all")

    def _start_all(self) -> None:
        names = [f"tiw-{host}@{self.network.address(host)}" for host in range(SIZE)]
        cookie, password, epmd_port = secrets.token_hex(16), secrets.token_hex(8), _free_port()
        settings = {**_SETTINGS, **{f"{_FOUNDERS}.{number}": name for number, name in enumerate(names, start=1)}}
        self.nodes = tuple(
            RabbitMQServer(
                self._scripts,
                settings=settings,
                host=self.network.address(host),
                prefix=self.network.prefix(host),
                membership=Membership(name, cookie, password, epmd_port),
            )
            for host, name in enumerate(names)
        )
        # The first founds the cluster; the others, which start together, find it.
        self._stack.enter_context(self.nodes[0])
        with ThreadPoolExecutor(SIZE) as pool:
            list(pool.map(self._stack.enter_context, self.nodes[1:]))
        self._wait_whole()

    def _another(self, number: int) -> RabbitMQServer:
        return self.nodes[(number + 1) % SIZE]

    def _queue(self, vhost: str, queue: str) -> dict[str, Any]:
        found: dict[str, Any] = self._any(lambda node: node.api("GET", f"queues/{vhost}/{queue}"))
        return found

    def _any(self, ask: Callable[[RabbitMQServer], T]) -> T:
        for node in self.nodes:
            with contextlib.suppress(OSError):
                return ask(node)
        raise ChaosError("no node answers")


def _running(node: RabbitMQServer) -> set[str]:
    return {one["name"] for one in node.api("GET", "nodes?columns=name,running") if one["running"]}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
