"""The list of files in CONTRIBUTING.md that a new event touches is complete: in a copy of the tree it is tried."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    *("archive", "broker", "console", "ingest", "notify", "reconcile", "schemas", "simulator", "store", "telemetry"),
    *("tiw", "vendor_api", "workers"),
)
KEY = "a key that only this test uses, long enough"

#: What is put into which file: before the first line that begins with the second text.
ADDED = {
    "schemas/events.py": [
        (
            "class OnlineRecordFinished(",
            '''class OnlineRecordResumed(RecordingEvent, frozen=True, kw_only=True, rename=wire_name):
    """The recording goes on after a pause."""


''',
        ),
        ("    | OnlineRecordFinished\n", "    | OnlineRecordResumed\n"),
        (
            "    EventKind(event=OnlineRecordFinished,",
            '    EventKind(event=OnlineRecordResumed, consumer="resumed", status=RecordingStatus.PAUSED),\n',
        ),
    ],
    "schemas/__init__.py": [
        ("    OnlineRecordStarted,\n", "    OnlineRecordResumed,\n"),
        ('    "OnlineRecordStarted",\n', '    "OnlineRecordResumed",\n'),
    ],
    "workers/builtin.py": [
        ("    OnlineRecordStarted,\n", "    OnlineRecordResumed,\n"),
        (
            "#: In the order of a recording's life.",
            '''@consumer(batch=BATCH, concurrency=CONCURRENCY, remember=False)
async def resumed(batch: list[tuple[OnlineRecordResumed, Context]]) -> None:
    """Keep events; their recordings were paused."""
    await keep(batch)


''',
        ),
    ],
    "simulator/classes.py": [
        (
            "        _stopped(cls, stopped_at),\n        _finished(rng, cls, stopped_at, videos),\n",
            '        _recording(cls, "OnlineRecordResumed", resumed_at, _bare_subject(cls)),\n',
        ),
    ],
}
REPLACED = {
    "workers/builtin.py": [
        ("long_pause_force_stopped, stopped, finished,", "long_pause_force_stopped, stopped, resumed, finished,")
    ]
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the product with a sixth event."""
    tree = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, additions in ADDED.items():
        text = (tree / name).read_text(encoding="utf-8")
        for before, added in additions:
            assert text.count(before) >= 1, f"{name} has no {before!r}"
            text = text.replace(before, added + before, 1)
        for old, new in REPLACED.get(name, []):
            assert old in text
            text = text.replace(old, new)
        (tree / name).write_text(text, encoding="utf-8")
    return tree


def test_the_list_in_contributing_names_just_the_files_that_are_changed_here() -> None:
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = document.partition("### An event\n")[2].partition("\n### ")[0]
    named = re.findall(r"^\d+\. `([\w/.]+)`", section, re.MULTILINE)
    # A service for its worker concerns those who run one container per consumer.
    assert [name for name in named if name != "docker-compose.yml"] == list(ADDED)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(tree: Path, *arguments: str) -> list[str]:
    assert tree.is_dir()
    return [sys.executable, "-P", "-m", "tiw", *arguments]


@contextmanager
def running(tree: Path, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        program = subprocess.Popen(command(tree, "up"), env=environ, stdout=file, stderr=file)
    try:
        yield program
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(60)


def asked(tree: Path, environ: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run(
        command(tree, *arguments, "--json"), env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_a_class_with_a_sixth_event_goes_through_the_pipeline(tree: Path, tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tree),
        "TIW_DATA_DIR": str(tmp_path / "data"),
        "TIW_HTTP": f"127.0.0.1:{port}",
        "TIW_ADMIN": f"127.0.0.1:{free_port()}",
        "TIW_CALLBACK_KEYS": json.dumps({"1400000001": [KEY]}),
        "TIW_CONSOLE": "off",
        "TIW_LOG_FORMAT": "json",
    }
    log = tmp_path / "log"
    with running(tree, environ, log):
        deadline_s = time.monotonic() + 60
        while b"worker_started" not in log.read_bytes():
            assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port}/callbacks/tiw"
        sent = asked(
            tree,
            environ,
            "simulate",
            "--url",
            address,
            "--app",
            "1400000001",
            "--key",
            KEY,
            "--classes",
            "12",
            "--seed",
            "5",
        )
        assert sent["accepted"] == sent["sent"] > 0
        kept: list[dict[str, Any]] = []
        while len(kept) < sent["accepted"]:
            assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
            kept = asked(tree, environ, "events", "list", "--limit", "0")
        resumed = [event for event in kept if event["event_type"] == "OnlineRecordResumed"]
        assert resumed
        unrecognized = asked(tree, environ, "events", "list", "--unrecognized")
        assert not [event for event in unrecognized if event["event_type"] == "OnlineRecordResumed"]
        recording = asked(tree, environ, "recordings", "show", resumed[0]["task_id"])
        assert "OnlineRecordResumed" in {event["event_type"] for event in recording["events"]}
        assert "resumed" in {consumer["name"] for consumer in asked(tree, environ, "consumers")}
