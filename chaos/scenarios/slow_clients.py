"""Clients by the thousand that take their time, while real callbacks flow."""

import math
import subprocess
import sys
from pathlib import Path

import msgspec
from yarl import URL

from chaos.errors import ChaosError
from chaos.evidence import GaveUp, Sent, Tried, now_us, read_lines
from chaos.faults.slow_clients import Order, Report
from chaos.machine.deployment import ROOT
from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage, wait_moving

CLIENTS = 1_000
FULL_CLIENTS = 5_000

#: The promises.
REAPED_WITHIN_S = 20.0
P99_MS = 250.0

#: Longer than they may stay, so that those who stay are seen.
STAY_S = 22.0

#: Interpreters start slowly on busy cores, and thousands of connections take a while.
_OVERTIME_S = 60.0

_ACCEPTED = 200


def _inject(stage: Stage) -> None:
    clients = stage.pick(CLIENTS, FULL_CLIENTS)
    stage.plan(f"{clients} clients, equally many of each habit, for {STAY_S:g} s")
    began_us = now_us()
    with stage.fault("slow clients", "ingest-1"):
        report = _send_slow_clients(stage, clients)
    _measure_reaping(stage, report)
    _measure_service(stage, began_us, now_us())
    wait_moving(stage)


def _send_slow_clients(stage: Stage, clients: int) -> Report:
    target = URL(stage.deployment.node("ingest-1").address)
    order = Order(host=str(target.host), port=target.port or 0, clients=clients, stay_s=STAY_S)
    order_file = stage.folder / "slow-clients.json"
    order_file.write_bytes(msgspec.json.encode(order))
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "chaos.faults.slow_clients", str(order_file)],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=STAY_S + _OVERTIME_S,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise ChaosError(f"the slow clients did not come to their end: {error}") from None
    return msgspec.json.decode(ended.stdout, type=Report)


def _measure_reaping(stage: Stage, report: Report) -> None:
    stage.say(f"connected {sum(report.connected.values())}, not connected {report.refused}")
    for habit, stay_s in report.longest_stay_s.items():
        stage.measure(f"longest stay of a client that was sent away ({habit})", stay_s, "s", at_most=REAPED_WITHIN_S)
        stage.measure(f"clients that were not sent away ({habit})", report.still_connected[habit], "clients", at_most=0)


def _measure_service(stage: Stage, began_us: int, ended_us: int) -> None:
    tries = _genuine_tries(stage.sending.ledger, began_us, ended_us)
    if not tries:
        raise ChaosError("no real callback was sent while there were slow clients")
    took_ms = sorted((one.ended_us - one.began_us - one.stalled_us) / 1e3 for one in tries)
    p99_ms = took_ms[math.ceil(len(took_ms) * 0.99) - 1]
    stage.measure("p99 of real callbacks beside slow clients", p99_ms, "ms", at_most=P99_MS)
    not_accepted = sum(one.status != _ACCEPTED for one in tries)
    stage.measure("real callbacks that were not accepted at once beside slow clients", not_accepted, "", at_most=0)


def _genuine_tries(ledger: Path, began_us: int, ended_us: int) -> list[Tried]:
    records = list(read_lines(ledger, Sent | Tried | GaveUp))
    forged = {record.event_id for record in records if isinstance(record, Sent) and record.forged}
    return [
        record
        for record in records
        if isinstance(record, Tried) and record.event_id not in forged
        if began_us <= record.began_us <= ended_us
    ]


SCENARIOS = (
    Scenario(
        name="slow-clients",
        sentence="thousands of clients that are silent, drip their headers or bodies, take no answers, send many "
        "requests at once or half a request, while real callbacks flow",
        inject=_inject,
        layout=Layout(ingest_nodes=1, workers=1),
        traffic=Traffic(callbacks=200, rate=40.0, tail_s=2.0),
    ),
)
