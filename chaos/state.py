"""What was finished, so that a run that was interrupted goes on where it stopped."""

import hashlib
from pathlib import Path

import msgspec

from chaos.machine.deployment import ROOT
from chaos.results import Result

#: Git ignores it.
STATE = ROOT / ".chaos"

#: A result holds for this code only.
_PACKAGES = ("broker", "chaos", "ingest", "schemas", "simulator", "store", "telemetry", "tiw", "workers")


def code_digest() -> str:
    """Return 12 hex digits that are the same as long as no line of the code changes."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class State:
    """The results of rounds, a file each, in `folder`."""

    def __init__(self, folder: Path = STATE) -> None:
        self._results = folder / "results"
        self._evidence = folder / "evidence"

    def evidence_folder(self, scenario: str, seed: int, *, is_full: bool) -> Path:
        """Return where the evidence of a round goes."""
        return self._evidence / _name(scenario, seed, is_full)

    def find(self, scenario: str, seed: int, *, is_full: bool) -> Result | None:
        """Return the result of a round, whichever code it was, or None."""
        file = self._results / f"{_name(scenario, seed, is_full)}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Result)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, result: Result) -> None:
        """Keep the result of a round that was played to its end."""
        self._results.mkdir(parents=True, exist_ok=True)
        file = self._results / f"{_name(result.scenario, result.seed, result.is_full)}.json"
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
        unfinished.replace(file)


def _name(scenario: str, seed: int, is_full: bool) -> str:
    return f"{'full' if is_full else 'short'}-{scenario}-{seed}"
