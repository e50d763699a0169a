"""Waiting until all that was accepted has had its effects."""

import asyncio
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import aiormq
import msgspec

from chaos.evidence.queue_reading import count_waiting
from chaos.evidence.records import Effect
from chaos.evidence.store_reading import count_events
from chaos.machine.deployment import LADDER_S, Deployment
from store import StoreError

_EVERY_S = 0.5

#: So many looks in a row must find nothing under way: a message on its way from queue to queue is in none.
_QUIET_LOOKS = 3

_SPOOLED = "tiw_spool_callbacks"


class _Effects:
    """The ids in a file of effects that grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_bytes = 0
        self.ids: set[str] = set()

    def read_on(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read_bytes)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(end)
        self.ids.update(_effect.decode(line).event_id for line in whole.splitlines())


_effect = msgspec.json.Decoder(Effect)


def settle(deployment: Deployment, accepted: set[str], *, within_s: float) -> float | None:
    """Return after how many seconds everything was quiet and applied; None if it never was within `within_s`."""
    began_s = time.monotonic()
    effects = _Effects(deployment.effects_file)
    takes_all = "effects" in deployment.layout.consumers
    quiet = 0
    quiet_since_s = began_s
    while time.monotonic() - began_s < within_s:
        effects.read_on()
        done = (not takes_all or accepted <= effects.ids) and _is_quiet(deployment, len(accepted))
        if not done:
            quiet = 0
        else:
            quiet += 1
            if quiet == 1:
                quiet_since_s = time.monotonic()
            if quiet == _QUIET_LOOKS:
                return quiet_since_s - began_s
        time.sleep(_EVERY_S)
    return None


def _is_quiet(deployment: Deployment, accepted: int) -> bool:
    wiring = deployment.wiring
    with suppress(StoreError, aiormq.AMQPError, OSError):
        if asyncio.run(count_events(wiring.direct_database_url)) < accepted:
            return False
        waiting = count_waiting(wiring.direct_amqp_url, deployment.layout.consumers, ladder_s=LADDER_S)
        return asyncio.run(waiting) == 0 and not any(_spooled(node.admin_address) for node in deployment.ingest)
    return False


def _spooled(admin_address: str) -> float:
    """Return how many callbacks wait in a node's spool, by its metric; 0 where there is none."""
    with urllib.request.urlopen(f"{admin_address}/metrics", timeout=5) as answer:  # noqa: S310 - our own
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_SPOOLED))
