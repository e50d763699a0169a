"""Two ingest nodes behind each load balancer, set up as in deploy/load-balancers: a rolling restart is not seen."""

import http.client
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Self

import pytest

from tests.end_to_end.deployment import Deployment, embedded, free_port, get
from tests.end_to_end.programs import STOP_S, Program, eventually
from tests.end_to_end.sending import callback, signed
from tests.servers.load_balancers import FILES, LoadBalancer, load_balancer_program

#: Connections of the sender, and the pause of each between an answer and the next callback.
SENDERS = 4
PAUSE_S = 0.01

#: These cannot send a POST again, so that nodes have to tell them before they stop; for longer than twice the interval
#: of their health checks.
CANNOT_REPEAT = {"caddy"}
STOP_DELAY_S = 2.5

#: The sender hangs up after 10 s.
ANSWER_S = 8.0


class Traffic:
    """Callbacks through `port` while it is entered; `answers` counts their statuses, or what came instead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)]
        self.answers: Counter[str] = Counter()
        self.slowest_s = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _send(self, sender: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        number = 0
        while not self._stopping.wait(PAUSE_S):
            number += 1
            body = json.dumps(signed(callback("OnlineRecordStarted", f"class-{self._port}-{sender}-{number}")))
            began_s = time.monotonic()
            try:
                connection.request("POST", "/callbacks/tiw", body)
                answer = connection.getresponse()
                answer.read()
                self.answers[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[type(error).__name__] += 1
                connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            if sender % 2:
                # As the vendor does: a connection for each callback.
                connection.close()
        connection.close()


class Node:
    """An ingest node that can be restarted where it was."""

    def __init__(self, deployment: Deployment, *, stop_delay_s: float) -> None:
        self._deployment = deployment
        self.port, self._admin_port = free_port(), free_port()
        deployment.settings |= {
            "TIW_HTTP": f"127.0.0.1:{self.port}",
            "TIW_ADMIN": f"127.0.0.1:{self._admin_port}",
            "TIW_STOP_DELAY_S": str(stop_delay_s),
        }
        self._program: Program = deployment.up()

    def restart(self) -> None:
        """As an operator does: go on once callbacks arrive again."""
        self._program.stop(within_s=STOP_S + STOP_DELAY_S)
        self._program = self._deployment.up()
        eventually(lambda: self.accepted > 0)

    @property
    def refused(self) -> bool:
        """Whether it has refused a request: health checks are none that would be."""
        return bool(self._deployment.logged("callback_refused"))

    @property
    def accepted(self) -> int:
        """How many callbacks it has taken since it was started."""
        _, page = get(f"http://127.0.0.1:{self._admin_port}/metrics")
        return sum(int(float(value)) for value in re.findall(r"(?m)^tiw_callbacks_accepted_total\{.*\} (.+)$", page))


Pair = tuple[Node, Node]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[float], Pair]]:
    """Give two nodes by the delay of their stop; they are started once, as that takes longest."""
    with ExitStack() as stack:

        def start(stop_delay_s: float) -> Node:
            return Node(stack.enter_context(embedded(tmp_path_factory.mktemp("node"))), stop_delay_s=stop_delay_s)

        yield cache(lambda stop_delay_s: (start(stop_delay_s), start(stop_delay_s)))


@pytest.mark.parametrize("name", FILES)
def test_a_rolling_restart_shows_no_answer_other_than_200(name: str, nodes: Callable[[float], Pair]) -> None:
    program = load_balancer_program(name)
    if program is None:
        sentence = f"{name} is not installed: install it, or run `./dev test` as root on Debian or Ubuntu"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    first, second = nodes(STOP_DELAY_S if name in CANNOT_REPEAT else 0.0)
    before = first.accepted, second.accepted
    with LoadBalancer(name, program, (first.port, second.port)) as balancer:
        with Traffic(balancer.port) as traffic:
            eventually(lambda: first.accepted > before[0] and second.accepted > before[1])
            first.restart()
            second.restart()
        assert set(traffic.answers) == {"200"}, (traffic.answers, balancer.log())
        assert traffic.slowest_s < ANSWER_S
        assert not first.refused
        assert not second.refused
