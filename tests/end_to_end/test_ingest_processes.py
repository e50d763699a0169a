"""`tiw ingest --processes 2`: one port, one listener for health and metrics, one end."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.deployment import Deployment, embedded, free_port, get
from tests.end_to_end.programs import Program, eventually, is_running
from tests.end_to_end.sending import KEY, callback, post, send, signed
from tests.servers.rabbitmq import RabbitMQServer


class Node:
    """An ingest node of two processes."""

    def __init__(self, deployment: Deployment) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.program = deployment.program(
            "ingest",
            "--processes",
            "2",
            TIW_HTTP=f"127.0.0.1:{self.port}",
            TIW_ADMIN=f"127.0.0.1:{self.admin_port}",
        )
        self.spool = deployment.data / "spool"
        self.address = deployment.address = f"http://127.0.0.1:{self.port}/callbacks/tiw"

    @property
    def readiness(self) -> int:
        return get(f"http://127.0.0.1:{self.admin_port}/readyz")[0]

    def wait_readiness(self, status: int) -> None:
        eventually(lambda: self.readiness == status)

    @property
    def accepted(self) -> int:
        """What the metrics of all processes say together."""
        _, metrics = get(f"http://127.0.0.1:{self.admin_port}/metrics")
        return sum(int(float(value)) for value in re.findall(r"(?m)^tiw_callbacks_accepted_total\{.*\} (.+)$", metrics))


def listening(program: Program, port: int) -> set[int]:
    """Return which children have a socket that listens on `port`."""
    local = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[1] == local and row[3] == "0A"}
    return {pid for pid in program.children() if inodes & set(sockets(pid))}


def sockets(pid: int) -> Iterator[str]:
    """Yield the inodes of a process's sockets."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed while we look.
        with contextlib.suppress(FileNotFoundError):
            yield descriptor.readlink().name.removeprefix("socket:[").removesuffix("]")


@pytest.fixture
def node(make_distributed: Callable[..., Deployment]) -> Node:
    node = Node(make_distributed())
    node.wait_readiness(200)
    return node


def test_both_processes_serve_and_their_metrics_are_summed(node: Node) -> None:
    assert len(listening(node.program, node.port)) == 2
    # Every callback comes over a connection of its own: the kernel spreads them.
    send(node.address, *(callback("OnlineRecordStarted", f"class-{number}") for number in range(60)))
    eventually(lambda: node.accepted == 60)
    assert get(f"http://127.0.0.1:{node.admin_port}/livez")[0] == 200


def test_readiness_says_whether_broker_or_spool_would_keep_a_callback(node: Node, rabbitmq: RabbitMQServer) -> None:
    rabbitmq.stop()
    send(node.address, callback("OnlineRecordStarted", "class-0"))
    assert node.readiness == 200
    # Where the spool was is something that cannot hold it.
    shutil.move(node.spool, node.spool.with_name("moved"))
    node.spool.touch()
    node.wait_readiness(503)
    assert post(node.address, signed(callback("OnlineRecordStarted", "class-1"))) == 503
    assert get(f"http://127.0.0.1:{node.admin_port}/livez")[0] == 200
    node.spool.unlink()
    node.wait_readiness(200)
    rabbitmq.start()
    send(node.address, callback("OnlineRecordStarted", "class-1"))


def test_a_child_that_is_killed_is_started_again_and_counts_go_on(node: Node) -> None:
    send(node.address, *(callback("OnlineRecordStarted", f"class-{number}") for number in range(20)))
    eventually(lambda: node.accepted == 20)
    victim = node.program.children()[0]
    os.kill(victim, signal.SIGKILL)
    node.program.wait_logged("process_ended", exit="signal SIGKILL")
    eventually(lambda: len(listening(node.program, node.port) - {victim}) == 2)
    node.wait_readiness(200)
    send(node.address, *(callback("OnlineRecordStopped", f"class-{number}") for number in range(20)))
    eventually(lambda: node.accepted == 40)  # a counter never goes back


def test_an_answer_in_flight_is_finished_before_the_node_ends(node: Node) -> None:
    body = json.dumps(signed(callback("OnlineRecordStarted", "class-1"))).encode()
    connection = http.client.HTTPConnection(urlsplit(node.address).netloc, timeout=10)
    connection.putrequest("POST", "/callbacks/tiw")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:-1])
    # One that has sent nothing keeps nobody waiting.
    with socket.create_connection(("127.0.0.1", node.port)):
        # Both processes answer these: by then the one has read the headers above.
        send(node.address, *(callback("OnlineRecordStopped", f"class-{number}") for number in range(20)))
        node.program.signal(signal.SIGTERM)
        eventually(lambda: not can_connect(node.port))
        connection.send(body[-1:])
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'{"error_code":0}')
        connection.close()
        node.program.stop()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_children_do_not_outlive_a_parent_that_is_killed(
    node: Node, make_distributed: Callable[..., Deployment]
) -> None:
    children = node.program.children()
    assert len(children) == 2
    node.program.signal(signal.SIGKILL)
    node.program.wait()
    eventually(lambda: not any(map(is_running, children)))
    assert not can_connect(node.port)


def post_through(path: Path, content: dict[str, Any]) -> int:
    """Post a callback through a unix socket, on a connection of its own."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(path))
    with contextlib.closing(connection):
        connection.request("POST", "/callbacks/tiw", json.dumps(signed(content)))
        return connection.getresponse().status


def _has_ended(pid: int) -> bool:
    return not is_running(pid)


def test_processes_share_a_unix_socket_that_outlives_each_of_them(
    make_distributed: Callable[..., Deployment], tmp_path: Path
) -> None:
    path = tmp_path / "ingest.sock"
    deployment = make_distributed(TIW_HTTP=f"unix:{path}")
    # The socket is passed on as it is to users' processes.
    deployment.anew = True
    program = deployment.program("ingest", "--processes", "2")
    eventually(lambda: len(program.logged("ingest_started", socket=str(path))) == 2)
    first, second = program.children()
    # Alone, each of them answers, and its end takes the file from nobody.
    for stopped, frozen in ((first, second), (second, first)):
        os.kill(stopped, signal.SIGTERM)
        eventually(partial(_has_ended, stopped))
        assert post_through(path, callback("OnlineRecordStarted", f"class-{frozen}")) == 200
        program.wait_logged("process_ended", exit="code 0")
    eventually(lambda: len(program.logged("ingest_started", socket=str(path))) == 4)
    # A second node is refused, and takes nothing from the first.
    other = deployment.run("ingest", "--processes", "2")
    assert (other.code, "another process listens there" in other.err) == (2, True)
    assert post_through(path, callback("OnlineRecordStarted", "class-1")) == 200
    program.stop()
    assert not path.exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_up_prints_how_to_send_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "the socket.sock"
    with embedded(tmp_path, TIW_HTTP=f"unix:{path}") as deployment:
        program = deployment.program("up")
        eventually(lambda: "Stop: Ctrl-C" in program.out)
        script = program.out.partition("Send a callback:\n\n")[2].partition("\n\n")[0]
        printed = script.replace("'the callback key'", KEY)
        done = subprocess.run(["/bin/sh", "-c", printed], capture_output=True, timeout=20, check=True)
        assert done.stdout == b'{"error_code":0}'
        assert f"callbacks  unix:{path}" in program.out
        program.stop()
        assert not path.exists()
