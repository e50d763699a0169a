"""What docs/migrate.md shows works as it stands there: the mirror, the comparison, and the consumer."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.end_to_end.deployment import embedded, free_port, get
from tests.end_to_end.programs import ROOT, eventually, run
from tests.end_to_end.sending import callback, post, signed

TEXT = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8")
TOKEN = "a-secret-part-of-the-address"


def block(language: str, containing: str) -> str:
    """Return the one block of the document that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    (found,) = [one for one in blocks if containing in one]
    return found


@contextmanager
def old_endpoint() -> Iterator[tuple[int, list[bytes]]]:
    """Serve an endpoint as somebody wrote it by hand; yield its port and the bodies that it gets."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nginx(folder: Path, server: str, port: int) -> Iterator[None]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr crit; events {{}}\n"
        f"http {{ {temporary} scgi_temp_path {folder}/scgi;\n{server} }}"
    )
    with subprocess.Popen([program, "-e", "stderr", "-p", str(folder), "-c", str(file)]) as process:
        try:
            eventually(lambda: process.poll() is None and get(f"http://127.0.0.1:{port}/")[0])
            yield
        finally:
            process.terminate()


def test_the_mirror_gives_both_sides_each_callback_and_the_comparison_shows_it(tmp_path: Path) -> None:
    server = block("nginx", "mirror /copy")
    port = free_port()
    bodies = [callback("OnlineRecordStarted", "class-1"), callback("OnlineRecordFinished", "class-1")]
    with old_endpoint() as (old_port, received), embedded(tmp_path / "ours", TIW_PATH_TOKEN=TOKEN) as deployment:
        deployment.up()
        for written, here in {
            "listen 80;": f"listen 127.0.0.1:{port};",
            "http://127.0.0.1:5000;": f"http://127.0.0.1:{old_port};",
            "http://127.0.0.1:8080/callbacks/tiw/TOKEN": deployment.address,
        }.items():
            assert server.count(written) == 1
            server = server.replace(written, here)
        with nginx(tmp_path, server, port):
            for content in bodies:
                assert post(f"http://127.0.0.1:{port}/old/callback", signed(content)) == 200
            assert len(received) == len(bodies)
            assert all(b'"Sign"' in body for body in received)
            eventually(lambda: deployment.count("events") == len(bodies))
        comparison = block("console", "collections").partition('python3 -c "')[2].rpartition('"')[0]
        listing = deployment.run("events", "list", "--since", "3d", "--limit", "0", "--json").out
        compared = subprocess.run(
            [sys.executable, "-c", comparison], input=listing.encode(), capture_output=True, check=True, timeout=30
        )
        assert compared.stdout.decode().startswith("1 Counter({'OnlineRecord")


def test_the_consumer_that_was_a_task_runs_and_repeats_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keep_links.py"
    file.write_text(block("python", "from workers import"))
    database = tmp_path / "links.db"
    counts = []
    for _ in range(2):
        tried = run({"LINKS_DATABASE": str(database)}, "try", str(file))
        assert tried.code == 0, tried.err
        assert "keep_links  OnlineRecordFinished  handled" in tried.out
        with closing(sqlite3.connect(database)) as connection:
            counts.append(connection.execute("SELECT count(*) FROM links WHERE url LIKE 'http%'").fetchone()[0])
    assert counts[0] > 0
    assert counts[1] == counts[0]


def test_what_became_of_the_task_before_it_made_rows_twice() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE links (task_id, url)")
    source = block("python", "@app.task").partition("\n")[2]
    names = {"sqlite3": type("sqlite3", (), {"connect": staticmethod(lambda _: database)})}
    exec(source, names)  # noqa: S102 - our own document
    payload = {"EventType": "OnlineRecordFinished", "EventData": {"TaskId": "t", "VideoInfos": [{"VideoUrl": "u"}]}}
    task = names["keep_links"]
    assert callable(task)
    for _ in range(2):
        task(None, payload)
    assert database.execute("SELECT count(*) FROM links").fetchone() == (2,)
    database.close()
