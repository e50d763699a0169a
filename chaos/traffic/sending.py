"""The harness's end of the sending process."""

import subprocess
import sys
from pathlib import Path
from typing import Self

import msgspec

from chaos.errors import ChaosError
from chaos.evidence import GaveUp, Sent, Tried
from chaos.machine.deployment import APP, ROOT, Deployment
from chaos.scenario import Traffic
from chaos.traffic.sender import Order

#: All repetitions of the last callback: six tries of 10 s, five pauses of 5 s.
_PATIENCE_S = 90.0

_ACCEPTED = 200


class Sending:
    """A sending process; a context manager that leaves none behind."""

    def __init__(self, folder: Path, traffic: Traffic, deployment: Deployment, *, seed: int) -> None:
        self.ledger = folder / "ledger.jsonl"
        self._order_file = folder / "order.json"
        self._log = folder / "sender.log"
        self._order = Order(
            addresses=tuple(deployment.addresses),
            sdk_app_id=APP,
            key=deployment.key,
            seed=seed,
            rate=traffic.rate,
            concurrency=traffic.concurrency,
            duplicates=traffic.duplicates,
            forged=traffic.forged,
            body_bytes=traffic.body_bytes,
            ledger=str(self.ledger),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._read_bytes = 0
        self._genuine: set[str] = set()
        self._accepted: set[str] = set()

    def __enter__(self) -> Self:
        self._order_file.write_bytes(msgspec.json.encode(self._order))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "chaos.traffic", str(self._order_file)],
                env={"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def sent(self) -> int:
        """How many distinct genuine callbacks were sent until now."""
        self._read_on()
        return len(self._genuine)

    def accepted(self) -> int:
        """How many distinct callbacks were answered 200 until now."""
        self._read_on()
        return len(self._accepted)

    def accepted_ids(self) -> set[str]:
        """Return the ids of genuine callbacks that were answered 200 until now."""
        self._read_on()
        return self._accepted & self._genuine

    def check(self) -> None:
        """Raise `ChaosError` if the process has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise ChaosError(f"the sender ended: {self._log.read_text(errors='replace')[-2_000:]}")

    def finish(self) -> None:
        """Send nothing new, let it repeat what is due, and return once it has ended. Raises `ChaosError`."""
        self.check()
        assert self._process is not None  # noqa: S101 - checked just now
        self._process.terminate()
        try:
            code = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ChaosError(f"the sender did not end within {_PATIENCE_S:g} s") from None
        if code != 0:
            raise ChaosError(f"the sender ended with {code}: {self._log.read_text(errors='replace')[-2_000:]}")

    def _read_on(self) -> None:
        if not self.ledger.exists():
            return
        with self.ledger.open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
        whole, found, _ = content.rpartition(b"\n")
        self._read_bytes += len(whole) + len(found)
        for line in whole.splitlines():
            record = _ledger_line.decode(line)
            if isinstance(record, Sent):
                if not record.forged:
                    self._genuine.add(record.event_id)
            elif isinstance(record, Tried) and record.status == _ACCEPTED:
                self._accepted.add(record.event_id)


_ledger_line = msgspec.json.Decoder(Sent | Tried | GaveUp)
