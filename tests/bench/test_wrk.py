"""What wrk says is read, and nothing that failed counts."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.errors import VoidRoundError
from bench.load.payloads import Payload, signed_callbacks
from bench.load.wrk import read_summary, run_wrk, write_bodies

GOOD = {"requests": 1000, "duration_us": 2_000_000, "refused": 0, "broken": 0, "p50_us": 1500, "p99_us": 9000}


def summary(**changes: int) -> str:
    return "Running 2s test\n" + json.dumps(GOOD | changes) + "\n"


def test_the_last_line_says_what_was_answered() -> None:
    load = read_summary(summary())
    assert (load.requests, load.requests_per_s, load.p50_ms, load.p99_ms) == (1000, 500.0, 1.5, 9.0)


@pytest.mark.parametrize("changes", [{"refused": 1}, {"broken": 1}, {"requests": 0}])
def test_a_load_that_was_not_taken_whole_does_not_count(changes: dict[str, int]) -> None:
    with pytest.raises(VoidRoundError):
        read_summary(summary(**changes))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed; ./dev bench installs it")
def test_every_request_is_the_next_body_of_the_file(tmp_path: Path) -> None:
    bodies = [payload.body for payload in signed_callbacks(7)]
    write_bodies(tmp_path / "bodies", [Payload(body=body, event_id="") for body in bodies])
    received: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/callbacks/tiw"
        try:
            load = run_wrk(url, tmp_path / "bodies", seconds=1, connections=1, begin_at=5)
        finally:
            server.shutdown()
            thread.join()
    assert load.requests <= len(received) <= load.requests + 1
    # wrk makes one request for itself, to see whether they change.
    expected = [bodies[(6 + number) % len(bodies)] for number in range(len(received))]
    assert received == expected
