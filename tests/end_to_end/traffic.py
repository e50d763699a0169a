"""The simulated sender as a process beside a deployment."""

import json

from msgspec import Struct

from tests.end_to_end.deployment import Deployment
from tests.end_to_end.programs import Program, eventually
from tests.end_to_end.sending import APP


class Counts(Struct, frozen=True, kw_only=True):
    """What the sender says at its end, as far as tests look at it."""

    sent: int
    accepted: int
    gave_up: int
    retries: int


class Traffic:
    """Classes that are played to a deployment at a rate, retried as the vendor does."""

    def __init__(self, deployment: Deployment, *, classes: int, rate: float) -> None:
        arguments = ("--app", str(APP), "--classes", str(classes), "--rate", str(rate), "--json")
        self._deployment = deployment
        self._program = deployment.program("simulate", "--url", deployment.address, *arguments)

    @property
    def program(self) -> Program:
        """The process."""
        return self._program

    def counts(self, *, within_s: float) -> Counts:
        """Return its counts once it has ended; it ends with 0 only if it gave up nothing."""
        assert self._program.wait(within_s=within_s) == 0, self._program.out + self._program.err
        report = json.loads(self._program.out)
        return Counts(**{name: report[name] for name in ("sent", "accepted", "gave_up", "retries")})

    def assert_recorded(self, counts: Counts) -> None:
        """Assert that all that was sent was accepted, and is recorded, once and without a dead letter."""
        assert counts.sent == counts.accepted
        assert counts.gave_up == 0
        eventually(lambda: self._deployment.count("events") >= counts.accepted, every_s=0.5)
        events = self._deployment.run("events", "list", "--limit", "0", "--json").json
        assert len({event["event_id"] for event in events}) == len(events) == counts.accepted
        assert self._deployment.run("dead-letters", "list", "--json").json == []
