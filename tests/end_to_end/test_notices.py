"""People are told once of what events say: in one process, and by three processes that are killed and started again."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.deployment import Deployment, embedded
from tests.end_to_end.programs import eventually
from tests.end_to_end.sending import callback, send


class Sink:
    """A webhook that keeps what came; it has each delivery for as long as `answers` is not set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.answers = threading.Event()
        self.answers.set()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                sink.requests.append((self.headers["webhook-id"], body))
                sink.answers.wait(20)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library calls it so
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def setting(self) -> str:
        """What TIW_NOTIFY has to be."""
        return f"webhook=http://127.0.0.1:{self.server.server_port}/hook"

    def told(self) -> Counter[tuple[str, str]]:
        """Return how often each rule was told of each recording."""
        return Counter((fact["rule"], fact["task_id"]) for _, body in self.requests for fact in body["data"]["notices"])


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.answers.set()
    sink.server.shutdown()
    sink.server.server_close()


def failed(number: int) -> dict[str, Any]:
    error = {"Code": "40004", "Message": "im login failed with code 6206"}
    return callback("OnlineRecordFinished", f"failed-{number}", Error=error)


def test_in_one_process_a_failure_is_told_once_across_a_restart(tmp_path: Path, sink: Sink) -> None:
    with embedded(tmp_path / "deployment", TIW_NOTIFY=sink.setting) as deployment:
        up = deployment.up()
        send(deployment.address, failed(1), failed(1), callback("OnlineRecordStarted", "well"))
        eventually(lambda: sink.told()["failed", "failed-1"])
        up.stop()
        deployment.up()
        send(deployment.address, failed(1), failed(2))
        eventually(lambda: sink.told()["failed", "failed-2"])
        eventually(lambda: deployment.select("SELECT count(*) FROM notices WHERE result IS NULL") == [("0",)])
    assert sink.told() == {("failed", "failed-1"): 1, ("failed", "failed-2"): 1}
    assert sink.server.server_port
    assert f":{sink.server.server_port}/hook" not in deployment.log


def test_three_processes_tell_each_failure_once_though_they_are_killed_and_started_again(
    make_distributed: Callable[..., Deployment], sink: Sink
) -> None:
    deployment = make_distributed(TIW_NOTIFY=sink.setting)
    assert deployment.run("migrate").code == 0
    deployment.ingest()
    replicas = [deployment.program("notify", "run") for _ in range(3)]
    for replica in replicas:
        replica.wait_logged("consumer_started", queue="tiw.notify")
    send(deployment.address, *(failed(number) for number in range(30)))
    eventually(lambda: len(sink.told()) == 30)
    eventually(lambda: deployment.select("SELECT count(*) FROM notices WHERE result IS NULL") == [("0",)])
    # Nothing is being sent now, so that nobody dies between a message and its result.
    replicas[0].signal(signal.SIGKILL)
    deployment.note_killed(replicas[0])
    replicas[1].stop()
    deployment.program("notify", "run").wait_logged("consumer_started", queue="tiw.notify")
    send(deployment.address, *(failed(number) for number in range(20, 60)))
    eventually(lambda: len(sink.told()) == 60)
    eventually(lambda: deployment.select("SELECT count(*) FROM notices WHERE result IS NULL") == [("0",)])
    assert sink.told() == {("failed", f"failed-{number}"): 1 for number in range(60)}


def test_without_a_channel_it_waits_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with embedded(tmp_path / "deployment", TIW_AMQP_URL="amqp://user:password@127.0.0.1:1/") as deployment:
        idle = deployment.program("notify", "run")
        idle.wait_logged("notify_idle")
        idle.stop()
