"""What a scenario sees while it injects faults."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from msgspec import structs

from chaos.errors import ChaosError
from chaos.evidence import Fault, LineWriter, Measured, now_us
from chaos.machine.deployment import Deployment
from chaos.machine.servers import Servers
from chaos.scenario import Scenario
from chaos.traffic.sending import Sending

T = TypeVar("T")

#: Longest wait for what should come soon.
SOON_S = 120.0


class Stage:
    """One round of one scenario. `rng` is all its randomness: the plan of faults is a function of the seed alone.

    `deployment` and `sending` are there once `inject` is called; `arrange` comes before them.
    """

    deployment: Deployment
    sending: Sending

    def __init__(
        self,
        scenario: Scenario,
        servers: Servers,
        folder: Path,
        *,
        seed: int,
        is_full: bool,
        previous_commit: str = "HEAD~1",
    ) -> None:
        self.scenario = scenario
        self.servers = servers
        self.folder = folder
        self.seed = seed
        self.is_full = is_full
        self.previous_commit = previous_commit
        self.rng = Random(f"{seed} {scenario.name}")
        #: What `arrange` made and `inject` needs, such as proxies.
        self.props: dict[str, Any] = {}
        self._faults = LineWriter(folder / "faults.jsonl")
        self._measures = LineWriter(folder / "measures.jsonl")
        self._lock = threading.Lock()
        self._count = 0

    def pick(self, short: T, full: T) -> T:
        """Return what fits the run: the second with --full."""
        return full if self.is_full else short

    def say(self, sentence: str) -> None:
        """Tell what goes on."""
        print(f"chaos: {self.scenario.name}: {sentence}", file=sys.stderr, flush=True)

    def plan(self, sentence: str) -> None:
        """Tell what will be done: said before the first fault, and the same for the same seed."""
        self.say(f"plan: {sentence}")

    @contextmanager
    def fault(
        self,
        kind: str,
        victim: str,
        *,
        nothing_durable: bool = False,
        excuses_deadline: bool = False,
        ends_everything: bool = False,
        of_consumer: str = "",
        recovers_within_s: float | None = None,
        drains_within_s: float | None = None,
        steps_clock: bool = False,
    ) -> Iterator[Fault]:
        """Mark a fault: inject it at the beginning of the block and undo it before its end. See `Fault`.

        Windows may overlap, also from several threads. What raises in the block ends the scenario as not played.
        """
        with self._lock:
            self._count += 1
            number = self._count
        fault = Fault(
            number=number,
            kind=kind,
            victim=victim,
            began_us=now_us(),
            nothing_durable=nothing_durable,
            excuses_deadline=excuses_deadline,
            ends_everything=ends_everything,
            of_consumer=of_consumer,
            recovers_within_s=recovers_within_s,
            drains_within_s=drains_within_s,
            steps_clock=steps_clock,
        )
        self._write(fault)
        try:
            yield fault
        finally:
            self._write(structs.replace(fault, ended_us=now_us()))

    def measure(self, what: str, value: float, unit: str, *, at_most: float) -> None:
        """Write down a quantity that has a bound: invariant I15."""
        with self._lock, self._measures as writer:
            writer.write(Measured(what=what, value=value, at_most=at_most, unit=unit))

    def sleep(self, seconds: float) -> None:
        """Let time pass, while callbacks are sent."""
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            self.sending.check()
            time.sleep(min(left_s, 0.5))

    def wait_until(self, condition: Callable[[], bool], what: str, *, within_s: float = SOON_S) -> None:
        """Return once `condition` holds. Raises `ChaosError`, with `what` was waited for, if it does not in time."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise ChaosError(f"not within {within_s:g} s: {what}")
            time.sleep(0.1)

    def wait_accepted(self, more: int, *, within_s: float = SOON_S) -> None:
        """Return once this many callbacks more were answered 200."""
        wanted = self.sending.accepted() + more
        self.wait_until(lambda: self.sending.accepted() >= wanted, f"{more} callbacks more accepted", within_s=within_s)

    def _write(self, fault: Fault) -> None:
        with self._lock, self._faults as writer:
            writer.write(fault)


#: Beyond the bound that the checker judges by, so that it has something to judge.
_GIVEN_UP_AFTER_S = 60.0

#: So many of those that were accepted may still be under way.
_UNDER_WAY = 15

#: What is sent after a fault's end must have its effect before the next fault, or it says nothing about the first.
_CALM_S = 1.0


def wait_moving(stage: Stage) -> None:
    """Return once what was accepted has had its effects, or it is clear that it has not: the checker judges that.

    A fault that meets the backlog of the one before would be judged for both.
    """
    effects = stage.deployment.effects_file

    def have_come() -> int:
        return effects.read_bytes().count(b"\n") if effects.exists() else 0

    with suppress(ChaosError):
        stage.wait_until(
            lambda: have_come() >= stage.sending.accepted() - _UNDER_WAY, "effects", within_s=_GIVEN_UP_AFTER_S
        )
    stage.sleep(_CALM_S)
