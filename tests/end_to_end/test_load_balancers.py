"""Two ingest nodes behind each load balancer, set up as in deploy/load-balancers: a rolling restart is not seen."""

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Self

import pytest
from msgspec import Struct

from tests.end_to_end.deployment import Deployment, embedded, free_port
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

    def restart(self, through: Sequence[int]) -> None:
        """As an operator does: go on once callbacks arrive again through the load balancer at each of these ports."""
        self._program.stop(within_s=STOP_S + STOP_DELAY_S)
        began_us = time.time_ns() // 1000
        self._program = self._deployment.up()
        eventually(lambda: all(self.has_from(port, since_us=began_us) for port in through))

    def has_from(self, port: int, *, since_us: int = 0) -> bool:
        """Say whether callbacks came since then through the load balancer at `port`."""
        sql = f"SELECT 1 FROM events WHERE task_id LIKE 'class-{port}-%' AND received_at_us > {since_us} LIMIT 1"  # noqa: S608 - numbers of ours
        return bool(self._deployment.select(sql))

    @property
    def refused(self) -> bool:
        """Whether it has refused a request: health checks are none that would be."""
        return bool(self._deployment.logged("callback_refused"))


class Outcome(Struct, frozen=True, kw_only=True):
    """What the senders behind one load balancer saw of a rolling restart, and what it wrote."""

    answers: Counter[str]
    slowest_s: float
    log: str
    refused: bool


def restart_one_by_one(names: Iterable[str], *, stop_delay_s: float, folders: Sequence[Path]) -> dict[str, Outcome]:
    """Restart two nodes, the one and then the other, behind these load balancers under traffic."""
    with ExitStack() as stack:
        first, second = (Node(stack.enter_context(embedded(one)), stop_delay_s=stop_delay_s) for one in folders)
        balancers = {
            name: stack.enter_context(LoadBalancer(name, program, (first.port, second.port)))
            for name in names
            if (program := load_balancer_program(name))
        }
        with ExitStack() as sending:
            traffic = {name: sending.enter_context(Traffic(one.port)) for name, one in balancers.items()}
            ports = [one.port for one in balancers.values()]
            eventually(lambda: all(node.has_from(port) for node in (first, second) for port in ports))
            first.restart(ports)
            second.restart(ports)
        refused = first.refused or second.refused
        return {
            name: Outcome(answers=one.answers, slowest_s=one.slowest_s, log=balancers[name].log(), refused=refused)
            for name, one in traffic.items()
        }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome | None]:
    """Give the outcome by the name of a load balancer. All that can be behind the same nodes are there at once."""

    @cache
    def outcomes_of(stop_delay_s: float) -> dict[str, Outcome]:
        names = [name for name in FILES if stop_delay_of(name) == stop_delay_s]
        folders = [tmp_path_factory.mktemp("node") for _ in range(2)]
        return restart_one_by_one(names, stop_delay_s=stop_delay_s, folders=folders)

    return lambda name: outcomes_of(stop_delay_of(name)).get(name)


def stop_delay_of(name: str) -> float:
    return STOP_DELAY_S if name in CANNOT_REPEAT else 0.0


@pytest.mark.parametrize("name", FILES)
def test_a_rolling_restart_shows_no_answer_other_than_200(name: str, outcomes: Callable[[str], Outcome | None]) -> None:
    outcome = outcomes(name)
    if outcome is None:
        sentence = f"{name} is not installed: install it, or run `./dev test` as root on Debian or Ubuntu"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    assert set(outcome.answers) == {"200"}, (outcome.answers, outcome.log)
    assert outcome.slowest_s < ANSWER_S
    assert not outcome.refused
