"""Rounds of scenarios, from the start of their processes to the judgement."""

import asyncio
import datetime as dt
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import aiormq
import msgspec

from chaos.checking.checker import judge
from chaos.checking.evidence import load_evidence, terms_of
from chaos.errors import ChaosError
from chaos.evidence import Effect, Outcome, search_files
from chaos.machine.deployment import LADDER_S, ROOT, Deployment
from chaos.machine.servers import Servers, servers_missing
from chaos.matrix import Result, count
from chaos.reading import Stored, count_events, count_waiting, read_queues, read_spools, read_store
from chaos.scenario import Scenario
from chaos.stage import SOON_S, Stage
from chaos.traffic.sending import Sending
from store import Store, StoreError

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


#: Callbacks that go through the whole pipeline before the first fault.
_WARM_UP = 20


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Which round is run, and where its evidence goes. `code` names the code, `previous` the commit to update from."""

    scenario: Scenario
    seed: int
    is_full: bool
    folder: Path
    code: str
    previous: str


def run_round(one: Round, servers: Servers) -> Result:
    """Play a round, collect its evidence and judge it. Never raises for what the pipeline does."""
    began_s = time.monotonic()
    cannot_run = servers_missing() or one.scenario.cannot_run()
    if cannot_run is not None:
        return _result(one, began_s, cannot_run=cannot_run)
    shutil.rmtree(one.folder, ignore_errors=True)
    one.folder.mkdir(parents=True)
    try:
        _play(one, servers)
    except ChaosError as error:
        return _result(one, began_s, problem=str(error))
    except Exception as error:  # noqa: BLE001 - printed and reported; the other scenarios must still run
        traceback.print_exc()
        return _result(one, began_s, problem=f"{type(error).__name__}: {error}")
    evidence = load_evidence(one.folder)
    findings = judge(evidence)
    return msgspec.structs.replace(
        _result(one, began_s),
        numbers=count(evidence, findings),
        findings=findings,
        measures=tuple(evidence.measures),
    )


def _play(one: Round, servers: Servers) -> None:
    scenario = one.scenario
    traffic = (scenario.full_traffic if one.is_full else None) or scenario.traffic
    stage = Stage(scenario, servers, one.folder, seed=one.seed, is_full=one.is_full, previous_commit=one.previous)
    (one.folder / "terms.json").write_bytes(msgspec.json.encode(terms_of(scenario)))
    with ExitStack() as stack:
        wiring = scenario.arrange(stage, servers, stack)
        stage.deployment = stack.enter_context(Deployment(one.folder, scenario.layout, wiring))
        stage.sending = stack.enter_context(Sending(one.folder, traffic, stage.deployment, seed=one.seed))
        _warm_up(stage)
        scenario.inject(stage)
        least = traffic.callbacks
        stage.wait_until(
            lambda: stage.sending.sent() >= least, f"{least} callbacks sent", within_s=_longest_s(traffic.rate, least)
        )
        stage.sleep(traffic.tail_s)
        stage.sending.finish()
        stage.say("waiting until all has settled")
        settled_after_s = settle(stage.deployment, stage.sending.accepted_ids(), within_s=scenario.settles_within_s)
        stage.deployment.stop()
        outcome = _collect(stage.deployment, settled_after_s)
    (one.folder / "outcome.json").write_bytes(msgspec.json.encode(outcome))


def _warm_up(stage: Stage) -> None:
    """Let callbacks flow until effects are seen: faults before that would tell nothing."""
    stage.wait_accepted(_WARM_UP)
    effects = stage.deployment.effects_file
    if "effects" in stage.deployment.layout.consumers:
        stage.wait_until(effects.exists, "the first effect", within_s=SOON_S)


def _longest_s(rate: float | None, callbacks: int) -> float:
    """Return how long the traffic may take at most: twice as long as it should."""
    return 60.0 + 2 * callbacks / (rate or 100.0)


def _collect(deployment: Deployment, settled_after_s: float | None) -> Outcome:
    wiring = deployment.wiring
    stored = asyncio.run(_read_store(wiring.direct_database_url, key=deployment.key))
    in_queues, queues = asyncio.run(read_queues(wiring.direct_amqp_url, deployment.layout.consumers, ladder_s=LADDER_S))
    in_spools, spools, not_looked = read_spools(deployment)
    files = dict(search_files([deployment.logs, *deployment.data_folders], deployment.key))
    searched = {"the store": stored.secrets, **files}
    return Outcome(
        events=stored.events,
        dead_letters=stored.dead_letters,
        completions=stored.completions,
        recordings=stored.recordings,
        differing=stored.differing,
        waiting=(*in_queues, *in_spools),
        places=(*queues, *spools),
        not_looked=not_looked,
        searched=tuple(searched),
        secrets=tuple(f"{what} is in {place}" for place, found in searched.items() for what in found),
        settled_after_s=settled_after_s,
    )


async def _read_store(url: str, *, key: str) -> Stored:
    async with Store(url) as store:
        return await read_store(store, key=key)


def _result(one: Round, began_s: float, *, problem: str = "", cannot_run: str = "") -> Result:
    return Result(
        scenario=one.scenario.name,
        seed=one.seed,
        is_full=one.is_full,
        code=one.code,
        finished_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        took_s=round(time.monotonic() - began_s, 1),
        problem=problem,
        cannot_run=cannot_run,
    )


#: Git ignores it.
STATE = ROOT / ".chaos"

#: A result holds for this code only.
_PACKAGES = (
    *(
        "archive",
        "broker",
        "chaos",
        "ingest",
        "reconcile",
        "schemas",
        "simulator",
        "store",
        "telemetry",
        "tiw",
        "vendor_api",
    ),
    "workers",
)


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


#: What a process gets to end what it has started.
_END_WITHIN_S = 60.0


def run_in_parallel(names: Sequence[str], options: Sequence[str], *, parallel: int) -> list[Result]:
    """Play the scenarios of these names in `parallel` processes; return their results in the order of the names.

    `options` are given to each process, too. One that is asked to end, as by Ctrl-C, ends its servers and processes; so
    does each if this one is. Raises `KeyboardInterrupt`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tiw-chaos-")))
        # Neighbours in the list are alike: each process gets some of all kinds.
        shares = [names[number::parallel] for number in range(parallel)]
        processes = [
            stack.enter_context(_Child(share, options, folder / f"{number}.json"))
            for number, share in enumerate(shares)
            if share
        ]
        results = [result for process in processes for result in process.results()]
    order = {name: number for number, name in enumerate(names)}
    return sorted(results, key=lambda result: (order[result.scenario], result.seed))


class _Child:
    """One process; a context manager that leaves none behind."""

    def __init__(self, names: Sequence[str], options: Sequence[str], file: Path) -> None:
        self._file = file
        chosen = [argument for name in names for argument in ("--scenario", name)]
        self._command = [sys.executable, "-P", "-m", "chaos", "--parallel", "1", *options, *chosen, "--json", str(file)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Its matrix is a part of ours. A session of its own: it ends when we say so.
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def results(self) -> list[Result]:
        """Return the results once the process has ended; none if it was stopped."""
        if self._process is not None:
            self._process.wait()
        return msgspec.json.decode(self._file.read_bytes(), type=list[Result]) if self._file.exists() else []
