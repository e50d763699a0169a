"""One round of a scenario, from the start of its processes to the judgement."""

import asyncio
import datetime as dt
import shutil
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import msgspec

from chaos.checking.evidence import load_evidence
from chaos.errors import ChaosError
from chaos.evidence.outcome import Outcome
from chaos.evidence.queue_reading import read_queues
from chaos.evidence.secret_search import search_files
from chaos.evidence.spool_reading import read_spools
from chaos.evidence.store_reading import read_store
from chaos.evidence.terms import terms_of
from chaos.machine.deployment import LADDER_S, Deployment
from chaos.machine.servers import Servers, servers_missing
from chaos.results import Result, count, judge
from chaos.scenario import Scenario
from chaos.settling import settle
from chaos.stage import SOON_S, Stage
from chaos.traffic.sending import Sending

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
    stored = asyncio.run(read_store(wiring.direct_database_url, key=deployment.key))
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
