"""The broker's own alarms: it goes on running, and reads nothing more from who publishes.

https://www.rabbitmq.com/docs/alarms
"""

from collections.abc import Iterator
from contextlib import contextmanager

from chaos.scenario import Layout, Scenario, Traffic
from chaos.stage import Stage

#: Normal again so soon after an alarm.
NORMAL_AGAIN_S = 5.0

_MEMORY_LIMIT = "600MB"
_DISK_LIMIT = "50MB"


@contextmanager
def memory_alarm(stage: Stage) -> Iterator[None]:
    """Let the broker find that it uses too much memory."""
    server = stage.servers.rabbitmq
    try:
        server.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        yield
    finally:
        server.ctl("set_vm_memory_high_watermark", "absolute", _MEMORY_LIMIT)


@contextmanager
def disk_alarm(stage: Stage) -> Iterator[None]:
    """Let the broker find that too little of its disk is free."""
    server = stage.servers.rabbitmq
    try:
        server.ctl("set_disk_free_limit", "1000000GB")
        yield
    finally:
        server.ctl("set_disk_free_limit", _DISK_LIMIT)


def _inject(stage: Stage) -> None:
    for_s = stage.pick(8.0, 60.0)
    alarms = [("memory alarm", memory_alarm), ("disk alarm", disk_alarm)] * stage.pick(1, 5)
    stage.rng.shuffle(alarms)
    stage.plan(", ".join(f"{kind} for {for_s:g} s" for kind, _ in alarms))
    for kind, alarm in alarms:
        with stage.fault(kind, "broker", recovers_within_s=NORMAL_AGAIN_S), alarm(stage):
            stage.sleep(for_s)
        stage.sleep(NORMAL_AGAIN_S + 3)


SCENARIOS = (
    Scenario(
        name="broker-alarms",
        sentence="Memory alarm and disk alarm of the broker, which then reads nothing from publishers; normal again "
        "within 5 s",
        inject=_inject,
        layout=Layout(ingest_nodes=1, workers=1),
        traffic=Traffic(callbacks=500, rate=50.0),
    ),
)
