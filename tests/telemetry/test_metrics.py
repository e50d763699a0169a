"""Metrics of one process, and the sum of several."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from telemetry import forget_process, metrics, render_metrics

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from telemetry import metrics
metrics.CALLBACKS_ACCEPTED.labels(routing_key="unrecognized").inc(2)
metrics.ANSWER_SECONDS.observe(0.01)
metrics.flush()
metrics.BYTES_IN_FLIGHT.set(100)
metrics.STORE_AWAY.set(int(sys.argv[1]))
metrics.READY.set(1)
print("done", flush=True)
sys.stdin.readline()
"""
PARENT = """
import sys
from telemetry import forget_process, metrics, render_metrics
forget_process(int(sys.argv[1]))
metrics.SPOOL_OLDEST_AGE_SECONDS.set(7)
ready = metrics.are_ready(map(int, sys.argv[2:]))
sys.stdout.buffer.write(render_metrics() + b"are ready %d" % ready)
"""


def test_a_process_renders_its_own_metrics() -> None:
    metrics.DELIVERIES.labels(consumer="finished", outcome="ack").inc()
    assert b'tiw_deliveries_total{consumer="finished",outcome="ack"}' in render_metrics()
    assert b"process_resident_memory_bytes" in render_metrics()
    forget_process(1)


def test_the_module_can_be_imported_twice() -> None:
    spec = importlib.util.spec_from_file_location("metrics_again", metrics.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    again.CALLBACKS_REFUSED.labels(reason="expired").inc()
    assert b'tiw_callbacks_refused_total{reason="expired"} 1.0' in again.render_metrics()


def run(code: str, folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_several_processes_are_summed_and_gauges_of_ended_ones_forgotten(tmp_path: Path) -> None:
    children = [run(CHILD, tmp_path, str(number)) for number in range(2)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"done\n"
        pids = [str(child.pid) for child in children]
        summed = run(PARENT, tmp_path, "1", *pids).communicate(timeout=60)[0]
        one_ended = run(PARENT, tmp_path, pids[1], *pids).communicate(timeout=60)[0]
    finally:
        for child in children:
            child.communicate(timeout=60)
    for line in (
        b'tiw_callbacks_accepted_total{routing_key="unrecognized"} 4.0\n',
        b"tiw_answer_seconds_count 2.0\n",
        b"tiw_bytes_in_flight 200.0\n",
        b"tiw_store_away 1.0\n",
        b"tiw_ready 1.0\n",
        # The one that asks does work of its own, too.
        b"tiw_spool_oldest_age_seconds 7.0\n",
        b"are ready 1",
    ):
        assert line in summed
    assert b'tiw_callbacks_accepted_total{routing_key="unrecognized"} 4.0\n' in one_ended
    assert b"tiw_bytes_in_flight 100.0\n" in one_ended
    assert b"tiw_store_away 0.0\n" in one_ended
    # It has said nothing, or nothing that still counts.
    assert b"are ready 0" in one_ended
